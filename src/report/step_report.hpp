// A footprint with the names of what was asked for, and its forms: JSON, terminal, Markdown, HTML.
#pragma once

#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "ashlar/allocation_trace.hpp"
#include "report/footprint.hpp"

namespace ashlar {

struct StepReport {
  std::string model;
  int stage = 0;
  std::string precision;
  Backend backend;
  int ranks_per_node = 1;
  Footprint footprint;

  /// All that the node's ranks take together.
  std::int64_t node_bytes() const { return footprint.peak.total * ranks_per_node; }
};

/// Keys are an interface: docs/report.md.
nlohmann::ordered_json to_json(const StepReport& report);
nlohmann::ordered_json to_json(const ModelStateBytes& bytes);

/// Tables with bars, for a terminal. One report in full, several side by side.
std::string to_text(const StepReport& report);
std::string to_text(std::span<const StepReport> reports);
std::string to_markdown(std::span<const StepReport> reports);

/// Bytes at the peak by what holds them, largest first.
struct Share {
  std::string name;
  std::int64_t bytes = 0;
};
enum class ShareBy : std::uint8_t { unit, module, op };
/// By unit: what lies in it. By module: model state by the parameters' names, layers summed under
/// '*', each parameter by its part of the flats. By op: transients by the op that makes them, with
/// the source line that called it. All add up to the bytes that are in use at the peak.
std::vector<Share> shares(const CompiledStep& step, const Footprint& footprint, ShareBy by);
std::string to_text(std::span<const Share> shares);

/// The plan as a trace: states, then every transient as it comes and goes.
Trace planned_trace(const CompiledStep& step);
/// For torch.cuda._memory_viz: blocks at their planned addresses, a space each segment.
/// @throws InvalidArgument naming the file.
void write_planned_snapshot(const CompiledStep& step, const std::filesystem::path& path);
/// What a page's sliders show: reports of stages and ranks, timelines by stage of the chosen ranks.
struct PageGrid {
  std::vector<StepReport> reports;
  std::vector<std::pair<int, Trace>> timelines;
};
/// A self-contained page: numbers, the timeline of `step`, and other stages and ranks by slider.
/// @throws InvalidArgument naming the file.
void write_html(const StepReport& report, const CompiledStep& step, const PageGrid& grid,
                const std::filesystem::path& path);

}  // namespace ashlar
