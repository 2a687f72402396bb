// train_gpt: trains a GPT with parameters, gradients and Adam states sharded over ranks. Alone it
// is one rank, with --ranks N the ranks are threads, under mpiexec each process is a rank.
#include <fmt/format.h>

#include <csignal>

#include "ashlar/collective_failure.hpp"
#include "ashlar/communicator.hpp"
#include "ashlar/error.hpp"
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

/// One line from one rank: input that all ranks refuse alike and what they throw together is told
/// by rank 0, any other failure by the rank that met it.
int fail(const std::exception& error, int code) {
  ashlar::Communicator& world = ashlar::world();
  const bool everybody = dynamic_cast<const ashlar::InvalidArgument*>(&error) != nullptr ||
                         dynamic_cast<const ashlar::CollectiveFailure*>(&error) != nullptr;
  if (!everybody || world.rank() == 0) fmt::print(stderr, "train_gpt: {}\n", error.what());
  if (world.size() > 1 && !everybody) {
    world.abort(error.what());
    ashlar::abort_world(code);
  }
  return code;
}

}  // namespace

int main(int argc, char** argv) {
  std::signal(SIGTERM, on_sigterm);
  try {
    Options options;
    ashlar::Communicator& world = ashlar::world();
    ashlar::collectively(world, [&] {
      options = train_gpt::parse_options(argc, argv);
      if (world.size() > 1 && options.ranks > 1)
        throw ashlar::InvalidArgument(
            "--ranks makes threads of one process: leave it out under mpiexec");
    });
    train_gpt::require_same_flags(world, options);
    if (!options.help.empty()) {
      if (world.rank() == 0) fmt::print("{}", options.help);
      return 0;
    }
    train(options);
    return 0;
  } catch (const ashlar::InvalidArgument& error) {
    return fail(error, 2);
  } catch (const ashlar::OutOfMemory& error) {
    return fail(error, 2);
  } catch (const std::exception& error) {
    return fail(error, 1);
  }
}
