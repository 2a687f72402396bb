// train_gpt: trains a GPT with parameters, gradients and Adam states sharded over ranks. Alone it
// is one rank, with --ranks N the ranks are threads, under mpiexec each process is a rank.
#include <fmt/format.h>

#include <csignal>

#include "ashlar/communicator.hpp"
#include "ashlar/error.hpp"
#include "ashlar/run_main.hpp"
#include "train_gpt/options.hpp"
#include "train_gpt/trainer.hpp"

namespace {

using train_gpt::Options;

extern "C" void on_sigterm(int) { train_gpt::stop_requested = true; }

void train(const Options& options) {
  if (options.ranks == 1) {
    train_gpt::Trainer(ashlar::world(), options, 1).run();
    return;
  }
  ashlar::launch_threads(options.ranks, [&](ashlar::Communicator& ranks) {
    train_gpt::Trainer(ranks, options, options.ranks).run();
  });
}

int run(int argc, char** argv) {
  Options options;
  ashlar::Communicator& world = ashlar::world();
  ashlar::collectively(world, [&] {
    options = train_gpt::parse_options(argc, argv);
    if (world.size() > 1 && options.ranks > 1)
      throw ashlar::InvalidArgument(
          "--ranks makes threads of one process: leave it out under mpiexec");
  });
  train_gpt::require_same_flags(world, options);
  if (options.help.empty()) {
    train(options);
  } else if (world.rank() == 0) {
    fmt::print("{}", options.help);
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  std::signal(SIGTERM, on_sigterm);
  return ashlar::run_main("train_gpt", [&] { return run(argc, argv); });
}
