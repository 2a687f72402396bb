#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "ashlar/memory_resource.hpp"
#include "report/step_report.hpp"

namespace ashlar {
namespace {

constexpr std::size_t kMostLines = 8;

std::string spaced(std::string_view name) {
  std::string text(name);
  std::ranges::replace(text, '_', ' ');
  return text;
}

/// Eighths of a cell, 24 cells at most.
std::string bar(std::int64_t bytes, std::int64_t most) {
  static constexpr std::string_view kEighths[] = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
  if (most <= 0) return "";
  const auto eighths = std::lround(24 * 8 * static_cast<double>(bytes) / static_cast<double>(most));
  std::string text;
  for (long i = 0; i < eighths / 8; ++i) text += "█";
  return text + std::string(kEighths[eighths % 8]);
}

std::string exact(std::int64_t bytes) {
  return bytes < 1024 ? format_bytes(bytes)
                      : fmt::format("{} ({} bytes)", format_bytes(bytes), bytes);
}

std::string row(std::string_view name, std::int64_t bytes, std::int64_t most) {
  return fmt::format("  {:<48}{:>12}  {}\n", name, format_bytes(bytes), bar(bytes, most));
}

/// (name, bytes) of all that adds up to the total, largest unit first as the categories are.
std::vector<Share> parts(const MemoryUse& use) {
  std::vector<Share> rows;
  for (int c = 0; c < kCategories; ++c)
    rows.push_back(
        {spaced(name_of(static_cast<Category>(c))), use.at_peak[static_cast<std::size_t>(c)]});
  rows.push_back({"fragmentation", use.fragmentation});
  rows.push_back({"padding", use.padding});
  return rows;
}

std::int64_t sum(const SentBytes& sent) {
  std::int64_t total = 0;
  for (const std::int64_t bytes : sent) total += bytes;
  return total;
}

/// Rows of the tables that compare reports.
std::vector<std::pair<std::string, std::vector<std::int64_t>>> table(
    std::span<const StepReport> reports) {
  std::vector<std::pair<std::string, std::vector<std::int64_t>>> rows;
  const auto add = [&](std::string name, const auto& value) {
    rows.emplace_back(std::move(name), std::vector<std::int64_t>());
    for (const StepReport& report : reports) rows.back().second.push_back(value(report.footprint));
  };
  add("parameter", [](const Footprint& f) { return f.model_state.parameter; });
  add("gradient", [](const Footprint& f) { return f.model_state.gradient; });
  add("optimizer state", [](const Footprint& f) { return f.model_state.optimizer_state; });
  add("model state", [](const Footprint& f) { return f.model_state.sum(); });
  for (const Category category : {Category::gathered_parameter, Category::activation,
                                  Category::communication, Category::workspace, Category::input})
    add(fmt::format("peak {}", spaced(name_of(category))),
        [=](const Footprint& f) { return f.peak.peak[static_cast<std::size_t>(category)]; });
  add("peak total", [](const Footprint& f) { return f.peak.total; });
  add("sent per step", [](const Footprint& f) { return sum(f.sent); });
  return rows;
}

std::string heading(const StepReport& report) {
  const Footprint& f = report.footprint;
  const std::string groups =
      f.group < f.ranks ? fmt::format(" in sharding groups of {}", f.group) : "";
  return fmt::format("{}: {} parameters, {} rank(s){}, {}", report.model, f.parameters, f.ranks,
                     groups, report.precision);
}

}  // namespace

std::string to_text(std::span<const Share> shares) {
  std::string text;
  const std::int64_t most = shares.empty() ? 0 : shares.front().bytes;
  for (const Share& share : shares) text += row(share.name, share.bytes, most);
  return text;
}

std::string to_text(const StepReport& report) {
  const Footprint& f = report.footprint;
  std::string text = fmt::format("{}, ZeRO stage {}\n", heading(report), report.stage);
  text += fmt::format("a rank needs {}, most at instruction {}, {}\n", exact(f.peak.total),
                      f.peak_index, f.peak_op);
  std::int64_t most = 0;
  for (const Share& part : parts(f.peak)) most = std::max(most, part.bytes);
  for (const Share& part : parts(f.peak)) text += row(part.name, part.bytes, most);
  text += "largest at that instant\n";
  for (std::size_t i = 0; i < std::min(kMostLines, f.at_peak.size()); ++i)
    text += row(f.at_peak[i].name, f.at_peak[i].bytes, most);
  text += "transients by name, the most at once\n";
  std::vector<Share> transients;
  for (const auto& [name, bytes] : f.transients) transients.push_back({name, bytes});
  std::ranges::stable_sort(transients, std::greater(), &Share::bytes);
  transients.resize(std::min(kMostLines, transients.size()));
  for (const Share& share : transients) text += row(share.name, share.bytes, most);
  text += "sent per step\n";
  for (int k = 0; k < kTrafficKinds; ++k)
    if (f.sent[static_cast<std::size_t>(k)] > 0)
      text += row(spaced(name_of(static_cast<Traffic>(k))), f.sent[static_cast<std::size_t>(k)], 0);
  text += fmt::format("a node of {} rank(s) needs {}\n", report.ranks_per_node,
                      exact(report.node_bytes()));
  return text + fmt::format(
                    "kernels for {} with {} thread(s); outside the plan: code, stacks, MPI's own "
                    "buffers (train_gpt prints what they took)\n",
                    report.backend.cpu, report.backend.threads);
}

std::string to_text(std::span<const StepReport> reports) {
  std::string text = heading(reports.front()) + fmt::format("\n{:<28}", "bytes of a rank");
  for (const StepReport& report : reports)
    text += fmt::format("{:>14}", fmt::format("stage {}", report.stage));
  text += '\n';
  for (const auto& [name, values] : table(reports)) {
    text += fmt::format("  {:<26}", name);
    for (const std::int64_t bytes : values) text += fmt::format("{:>14}", format_bytes(bytes));
    text += '\n';
  }
  return text;
}

std::string to_markdown(std::span<const StepReport> reports) {
  std::string text = fmt::format("**{}**\n\n| bytes of a rank |", heading(reports.front()));
  std::string rule = "|---|";
  for (const StepReport& report : reports) {
    text += fmt::format(" stage {} | exact |", report.stage);
    rule += "--:|--:|";
  }
  text += '\n' + rule + '\n';
  for (const auto& [name, values] : table(reports)) {
    text += fmt::format("| {} |", name);
    for (const std::int64_t bytes : values)
      text += fmt::format(" {} | {} |", format_bytes(bytes), bytes);
    text += '\n';
  }
  return text;
}

}  // namespace ashlar
