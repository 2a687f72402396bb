// ashlar plan-memory: offsets for the buffers of a file, as low as the time allows.
#include <fmt/format.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <fstream>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>

#include "ashlar/error.hpp"
#include "ashlar/memory_plan.hpp"
#include "ashlar/memory_resource.hpp"
#include "cli/checks.hpp"
#include "cli/commands.hpp"
#include "cli/output.hpp"
#include "cli/plan_svg.hpp"
#include "memory/plan/csv.hpp"

namespace ashlar::cli {
namespace {

struct Options {
  std::string file, output, svg;
  std::int64_t capacity = 0;
  double time_limit = 30;
  bool json = false;
};

plan::Table read(const std::string& file) {
  std::ifstream in(file);
  if (!in) throw InvalidArgument(fmt::format("{}: {}", file, std::strerror(errno)));
  return plan::read_table(in, file);
}

void require_room(std::int64_t capacity, std::int64_t load) {
  if (capacity >= load) return;
  throw InvalidArgument(
      fmt::format("--capacity {} is too small by {} bytes: at one instant {} bytes are in use",
                  capacity, load - capacity, load));
}

std::string to_json(const Options& options, const PlanResult& result, std::size_t buffers,
                    double seconds) {
  const nlohmann::ordered_json json{
      {"buffers", buffers},
      {"capacity", options.capacity > 0 ? nlohmann::ordered_json(options.capacity) : nullptr},
      {"lower_bound", result.lower_bound},
      {"height", result.plan.height},
      {"proved_optimal", result.proved_optimal()},
      {"seconds", seconds}};
  return json.dump();
}

std::string to_text(const PlanResult& result, std::size_t buffers, double seconds) {
  const double above = result.lower_bound == 0
                           ? 0
                           : 100.0 * static_cast<double>(result.plan.height - result.lower_bound) /
                                 static_cast<double>(result.lower_bound);
  const std::string bound =
      result.proved_optimal()
          ? "proved optimal"
          : fmt::format("{:.2f} % above the lower bound {}", above, result.lower_bound);
  return fmt::format("{} buffers in {} bytes ({}): {}, {:.2f} s", buffers, result.plan.height,
                     format_bytes(result.plan.height), bound, seconds);
}

int run(const Options& options) {
  using Clock = std::chrono::steady_clock;
  const plan::Table table = read(options.file);
  if (options.capacity > 0) require_room(options.capacity, maximum_load(table.buffers));
  const auto begin = Clock::now();
  const auto seconds = [&] { return std::chrono::duration<double>(Clock::now() - begin).count(); };
  PlanOptions search;
  search.capacity = options.capacity;
  search.node_limit = std::numeric_limits<std::int64_t>::max();
  search.progress = [&](const PlanProgress&) { return seconds() < options.time_limit; };
  const PlanResult result = solve_memory_plan(table.buffers, search);
  const double used = seconds();
  validate(table.buffers, result.plan, 1);

  if (!options.output.empty()) {
    write_file(options.output,
               [&](std::ostream& out) { plan::write_table(out, table, result.plan.offsets); });
  }
  if (!options.svg.empty())
    write_file(options.svg, [&](std::ostream& out) {
      out << plan_svg(table, result, options.capacity, options.file);
    });
  const std::size_t buffers = table.buffers.size();
  fmt::print("{}\n", options.json ? to_json(options, result, buffers, used)
                                  : to_text(result, buffers, used));
  const bool fits = options.capacity == 0 || result.plan.height <= options.capacity;
  if (!fits)
    fmt::print(stderr,
               "ashlar: no plan within --capacity {} was found; the lowest needs {} bytes more\n",
               options.capacity, result.plan.height - options.capacity);
  return fits ? 0 : 1;
}

}  // namespace

void add_plan_memory(CLI::App& app, Command& command) {
  const auto options = std::make_shared<Options>();
  CLI::App& sub = *app.add_subcommand(
      "plan-memory", "Offsets in one arena for buffers with known lifetimes, as low as possible");
  sub.add_option("file", options->file, "CSV: id,lower,upper,size; lifetimes are half-open")
      ->required();
  sub.add_option("--capacity", options->capacity, "bytes: stop at the first plan that fits")
      ->check(whole_number(1));
  sub.add_option("--time-limit", options->time_limit, "seconds")
      ->check(seconds)
      ->capture_default_str();
  sub.add_option("--output", options->output, "the CSV again, with a column 'offset'");
  sub.add_option("--svg", options->svg, "a drawing of the plan");
  sub.add_flag("--json", options->json, "print JSON");
  sub.footer("Example: ashlar plan-memory buffers.csv --capacity 1048576 --output placed.csv");
  sub.callback([options, &command] { command = [options] { return run(*options); }; });
}

}  // namespace ashlar::cli
