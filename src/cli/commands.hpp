// The subcommands of `ashlar`, one file each. A command adds its options to the app and, when the
// user names it, leaves in `run` what is to be done.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>

namespace ashlar::cli {

/// @return the exit code: 0 done, 1 not achieved. Bad input throws InvalidArgument (exit code 2).
using Command = std::function<int()>;

void add_plan_memory(CLI::App& app, Command& run);
void add_replay_allocations(CLI::App& app, Command& run);
void add_completion(CLI::App& app, Command& run);
void add_plan(CLI::App& app, Command& run);
void add_report(CLI::App& app, Command& run);
void add_simulate(CLI::App& app, Command& run);
void add_calibrate(CLI::App& app, Command& run);
void add_predict(CLI::App& app, Command& run);

}  // namespace ashlar::cli
