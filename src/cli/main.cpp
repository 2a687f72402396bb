// ashlar: plans and measures without training. One subcommand per file.
#include <fmt/format.h>

#include "ashlar/error.hpp"
#include "ashlar/run_main.hpp"
#include "base/printable.hpp"
#include "cli/commands.hpp"
#include "cli/flags/flag_values.hpp"

namespace {

int parse_and_run(int argc, char** argv) {
  CLI::App app{"Ashlar: every byte of a training step, planned", "ashlar"};
  app.require_subcommand(1);
  ashlar::cli::Command run;
  ashlar::cli::add_plan_memory(app, run);
  ashlar::cli::add_replay_allocations(app, run);
  ashlar::cli::add_completion(app, run);
  ashlar::cli::add_plan(app, run);
  ashlar::cli::add_report(app, run);
  ashlar::cli::add_simulate(app, run);
  ashlar::cli::add_calibrate(app, run);
  ashlar::cli::add_predict(app, run);
  for (CLI::App* command : app.get_subcommands([](CLI::App*) { return true; }))
    ashlar::cli::take_last_words(*command);
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp& help) {
    return app.exit(help);
  } catch (const CLI::ParseError& error) {
    throw ashlar::InvalidArgument(fmt::format("{} (see --help)", ashlar::printable(error.what())));
  }
  return run();
}

}  // namespace

int main(int argc, char** argv) {
  return ashlar::run_main("ashlar", [&] { return parse_and_run(argc, argv); });
}
