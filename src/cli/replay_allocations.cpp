// ashlar replay-allocations: what the caching allocator makes of a trace, on a device of addresses
// alone.
#include <fmt/format.h>

#include <cmath>
#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "ashlar/allocation_trace.hpp"
#include "ashlar/error.hpp"
#include "ashlar/memory_resource.hpp"
#include "cli/checks.hpp"
#include "cli/commands.hpp"
#include "cli/flags/flag_values.hpp"

namespace ashlar::cli {
namespace {

const std::map<std::string, Trace (*)()>& synthetic_traces() {
  static const std::map<std::string, Trace (*)()> traces{
      {"fsdp", [] { return fsdp_trace(); }},
      {"variable-lengths", [] { return variable_lengths_trace(1); }},
      {"random-sizes", [] { return random_sizes_trace(1); }},
      {"steady-step", [] { return steady_step_trace(); }}};
  return traces;
}

std::vector<std::string> synthetic_names() {
  std::vector<std::string> names;
  for (const auto& [name, trace] : synthetic_traces()) names.push_back(name);
  return names;
}

struct Options {
  std::string file, synthetic, capacity, timeline;
  std::int64_t run_ahead = 300;
  bool segments = false, keep_streams_apart = false, json = false;
};

Trace trace_of(const Options& options) {
  if (options.file.empty() == options.synthetic.empty())
    throw InvalidArgument("replay-allocations takes a trace: either a file or --synthetic");
  if (!options.file.empty()) return read_trace(std::filesystem::path(options.file));
  return synthetic_traces().at(options.synthetic)();
}

int run(const Options& options) {
  const Trace trace = trace_of(options);
  SimulatedPages device(options.capacity.empty() ? INT64_MAX : parse_bytes(options.capacity),
                        options.run_ahead);
  CachingOptions caching;
  caching.expandable = !options.segments;
  caching.order_streams = !options.keep_streams_apart;
  CachingResource resource(device, caching);
  const ReplayReport report = replay(trace, resource, device.replay_options());
  const std::int64_t reserved = resource.statistics().peak_reserved_bytes;
  const double fragmentation = reserved == 0 ? 0
                                             : 1 - static_cast<double>(report.peak_live_bytes) /
                                                       static_cast<double>(reserved);
  const double nanoseconds =
      report.operations == 0 ? 0 : report.nanoseconds / static_cast<double>(report.operations);
  if (!options.timeline.empty()) write_timeline(trace, options.timeline);

  if (options.json)
    fmt::print("{}\n", nlohmann::ordered_json{{"operations", report.operations},
                                              {"peak_live_bytes", report.peak_live_bytes},
                                              {"peak_reserved_bytes", reserved},
                                              {"fragmentation", fragmentation},
                                              {"ns_per_operation", nanoseconds},
                                              {"failures", report.failures}}
                           .dump());
  else
    fmt::print(
        "{} operations: peak {} live, {} reserved (fragmentation {:.2f} %), {:.0f} ns each\n",
        report.operations, format_bytes(report.peak_live_bytes), format_bytes(reserved),
        100 * fragmentation, nanoseconds);
  if (report.failures == 0) return 0;
  fmt::print(stderr, "ashlar: {} of the allocations failed, the first {}: {}\n", report.failures,
             report.failing_line > 0 ? fmt::format("on line {}", report.failing_line)
                                     : std::string("of a synthetic trace"),
             report.failure);
  return 1;
}

}  // namespace

void add_replay_allocations(CLI::App& app, Command& command) {
  const auto options = std::make_shared<Options>();
  CLI::App& sub =
      *app.add_subcommand("replay-allocations",
                          "Repeat a trace of allocations on the caching allocator, without memory");
  sub.add_option("file", options->file, "CSV as RMM or --allocation-trace writes it");
  add_choice(sub, "--synthetic", options->synthetic, synthetic_names(),
             "a built-in trace instead of a file");
  sub.add_option("--capacity", options->capacity, "bytes of the device, e.g. 80GiB");
  sub.add_option("--run-ahead", options->run_ahead,
                 "operations by which the program is ahead of its device")
      ->check(whole_number(0))
      ->capture_default_str();
  sub.add_flag("--segments", options->segments, "grow by segments instead of page by page");
  sub.add_flag("--keep-streams-apart", options->keep_streams_apart,
               "never order a stream after another to reuse its memory");
  sub.add_option("--timeline", options->timeline, "an HTML page of the trace");
  sub.add_flag("--json", options->json, "print JSON");
  sub.footer("Example: ashlar replay-allocations --synthetic fsdp --capacity 80GiB --json");
  sub.callback([options, &command] { command = [options] { return run(*options); }; });
}

}  // namespace ashlar::cli
