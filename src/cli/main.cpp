// ashlar: plans and measures without training. One subcommand per file.
#include <fmt/format.h>

#include <cstdio>

#include "ashlar/error.hpp"
#include "cli/commands.hpp"

namespace {

int parse_and_run(int argc, char** argv) {
  CLI::App app{"Ashlar: every byte of a training step, planned", "ashlar"};
  app.require_subcommand(1);
  ashlar::cli::Command run;
  ashlar::cli::add_plan_memory(app, run);
  ashlar::cli::add_replay_allocations(app, run);
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp& help) {
    return app.exit(help);
  } catch (const CLI::ParseError& error) {
    throw ashlar::InvalidArgument(fmt::format("{} (see --help)", error.what()));
  }
  return run();
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return parse_and_run(argc, argv);
  } catch (const ashlar::InvalidArgument& error) {
    fmt::print(stderr, "ashlar: {}\n", error.what());
    return 2;
  } catch (const std::exception& error) {
    fmt::print(stderr, "ashlar: {}\n", error.what());
    return 1;
  }
}
