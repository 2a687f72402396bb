// Wraps libtorch modules: classifiers of Fashion-MNIST and language models on random tokens,
// sharded over ranks. Alone one rank, with --ranks N threads, under mpiexec a process each.
//   wrap_torch --model transformer --epochs 2
//   mpiexec -n 2 wrap_torch --model 30m --synthetic --batch 4 --steps 10 --metrics run.jsonl
#include <dlfcn.h>
#include <fmt/format.h>
#include <torch/torch.h>

#include "ashlar/error.hpp"
#include "ashlar/interop/torch_memory.hpp"
#include "ashlar/run_main.hpp"
#include "train_gpt/hardware.hpp"
#include "wrap_torch/options.hpp"

namespace {

using wrapped::Options;

/// OpenBLAS, which Debian's libtorch multiplies with, counts threads of its own.
void set_threads(int threads) {
  torch::set_num_threads(threads);
  void* const blas = ::dlsym(RTLD_DEFAULT, "openblas_set_num_threads");
  if (blas != nullptr) reinterpret_cast<void (*)(int)>(blas)(threads);
}

/// @return per cent of test images; 100 for models of tokens
double train(ashlar::Communicator& world, Options options) {
  if (options.threads == 0) options.threads = train_gpt::default_threads(world);
  set_threads(options.threads);
  if (options.images()) return wrapped::train_classifier(world, options);
  wrapped::train_language_model(world, options);
  return 100;
}

int run(int argc, char** argv) {
  ashlar::Communicator& world = ashlar::world();
  Options options;
  ashlar::collectively(world, [&] {
    options = wrapped::parse_options(argc, argv);
    if (world.size() > 1 && options.ranks > 1)
      throw ashlar::InvalidArgument(
          "--ranks makes threads of one process: leave it out under mpiexec");
  });
  if (!options.help.empty()) {
    if (world.rank() == 0) fmt::print("{}", options.help);
    return 0;
  }
  ashlar::torch::cache_cpu_memory();
  double accuracy = 0;
  if (options.ranks == 1) {
    accuracy = train(world, options);
  } else {
    ashlar::launch_threads(options.ranks, [&](ashlar::Communicator& ranks) {
      const double mine = train(ranks, options);
      if (ranks.rank() == 0) accuracy = mine;
    });
  }
  return accuracy >= options.at_least ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  return ashlar::run_main("wrap_torch", [&] { return run(argc, argv); });
}
