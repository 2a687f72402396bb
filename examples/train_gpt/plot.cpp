#include "train_gpt/plot.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <fstream>
#include <numeric>
#include <span>
#include <type_traits>

#include "ashlar/error.hpp"
#include "ashlar/memory_resource.hpp"
#include "base/markup.hpp"
#include "train_gpt/axis.hpp"

namespace train_gpt {
namespace {

constexpr double kWidth = 960;
constexpr double kHeight = 720;
constexpr double kLeft = 84;
constexpr double kRight = 690;  // the legends stand beyond
constexpr std::size_t kMostPoints = 800;

constexpr std::string_view kShapes =
    "text{font:13px system-ui,'DejaVu Sans',sans-serif}.title{font-size:17px;font-weight:600}"
    ".head{font-size:14px;font-weight:600}.x{text-anchor:middle}.y{text-anchor:end}"
    ".line{fill:none;stroke-width:2.2;stroke-linejoin:round}.raw{stroke-width:1;opacity:.35}";

struct Paint {
  std::string_view rule;
  std::string_view light;
  std::string_view dark;
};

constexpr std::array<Paint, 18> kPaints{{{"text{fill", "#5b6472", "#a0a9b8"},
                                         {".title,.head{fill", "#1f2430", "#e6e9ef"},
                                         {".back{fill", "#ffffff", "#14171c"},
                                         {".grid{stroke", "#e3e6eb", "#2b313b"},
                                         {".train{stroke", "#2f6fde", "#6ea0ff"},
                                         {".train-key{fill", "#2f6fde", "#6ea0ff"},
                                         {".valid{stroke", "#d9480f", "#ff8c5a"},
                                         {".valid-key{fill", "#d9480f", "#ff8c5a"},
                                         {".m0{fill", "#2f6fde", "#4f86e8"},
                                         {".m1{fill", "#d9480f", "#e8703a"},
                                         {".m2{fill", "#2b8a3e", "#4ca866"},
                                         {".m3{fill", "#7aa7f2", "#9cbcf5"},
                                         {".m4{fill", "#f2b134", "#d9a13a"},
                                         {".m5{fill", "#8e5bd0", "#a47be0"},
                                         {".m6{fill", "#17a2a2", "#35b5b5"},
                                         {".m7{fill", "#c2255c", "#e0588a"},
                                         {".m8{fill", "#98a1ae", "#717b8a"},
                                         {".m9{fill", "#c9ced6", "#4a5260"}}};

std::string style() {
  std::string light;
  std::string dark;
  for (const Paint& paint : kPaints) {
    light += fmt::format("{}:{}}}", paint.rule, paint.light);
    dark += fmt::format("{}:{}}}", paint.rule, paint.dark);
  }
  return fmt::format("<style>{}{}@media (prefers-color-scheme:dark){{{}}}</style>\n", kShapes,
                     light, dark);
}

std::string text(double x, double y, std::string_view kind, std::string_view words) {
  return fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" class=\"{}\">{}</text>\n", x, y, kind,
                     ashlar::markup(words));
}

double total(const Curves::Memory& memory) {
  return std::accumulate(memory.bytes.begin(), memory.bytes.end(), 0.0);
}

/// One of every k points and the last, so that a long run stays a small file: of the losses the
/// first, of memory the highest.
template <typename T>
std::vector<T> thin(std::span<const T> points) {
  const std::size_t stride = points.size() / kMostPoints + 1;
  std::vector<T> kept;
  for (std::size_t i = 0; i < points.size(); i += stride) {
    const auto part = points.subspan(i, std::min(stride, points.size() - i));
    if constexpr (std::is_same_v<T, Curves::Memory>)
      kept.push_back(*std::ranges::max_element(part, {}, total));
    else
      kept.push_back(part.front());
  }
  if (stride > 1) kept.push_back(points.back());
  return kept;
}

/// Exponential moving average over about a hundredth of the run, without bias towards the start.
std::vector<Curves::Point> smooth(std::vector<Curves::Point> points) {
  const double keep = 1 - 2 / (static_cast<double>(points.size()) / 100 + 1);
  double sum = 0;
  double weight = 0;
  for (Curves::Point& point : points) {
    sum = keep * sum + point.value;
    weight = keep * weight + 1;
    point.value = sum / weight;
  }
  return points;
}

/// "64 MiB", "1.50 GiB".
std::string bytes_label(double bytes) {
  std::string label = ashlar::format_bytes(static_cast<std::int64_t>(bytes));
  if (const auto zeros = label.find(".00 "); zeros != std::string::npos) label.erase(zeros, 3);
  return label;
}

struct Panel {
  Axis x;
  Axis y;
};

std::string frame(const Panel& panel, std::string_view heading, int base,
                  std::string (*label)(double)) {
  std::string svg = text(kLeft, panel.y.end - 16, "head", heading);
  for (const double value : ticks(panel.y.low, panel.y.high, 5, base)) {
    const double y = panel.y.at(value);
    svg += fmt::format("<path class=\"grid\" d=\"M{:.1f} {:.1f}H{:.1f}\"/>\n", kLeft, y, kRight);
    svg += text(kLeft - 8, y + 4, "y", label(value));
  }
  for (const double value : ticks(panel.x.low, panel.x.high, 8)) {
    if (value != static_cast<double>(static_cast<std::int64_t>(value))) continue;
    svg += text(panel.x.at(value), panel.y.begin + 19, "x", fmt::format("{:.0f}", value));
  }
  return svg + text((kLeft + kRight) / 2, panel.y.begin + 38, "x", "step");
}

std::string path_of(const std::vector<Curves::Point>& points, const Panel& panel) {
  std::string path;
  for (const Curves::Point& point : points)
    path += fmt::format("{}{:.1f} {:.1f}", path.empty() ? 'M' : 'L', panel.x.at(point.step),
                        panel.y.at(point.value));
  return path;
}

std::string line(const std::vector<Curves::Point>& points, const Panel& panel,
                 std::string_view kind) {
  return fmt::format("<path class=\"line {}\" d=\"{}\"/>\n", kind, path_of(points, panel));
}

std::string key(double y, std::string_view kind, std::string_view words) {
  return fmt::format(
             "<rect x=\"{}\" y=\"{:.1f}\" width=\"14\" height=\"14\" rx=\"3\" "
             "class=\"{}\"/>\n",
             kRight + 24, y - 11, kind) +
         text(kRight + 46, y, "key", words);
}

/// Steps of both panels; a run of one step still has a width.
Axis step_axis(const Curves& curves) {
  const double first = curves.train().front().step;
  const double last = curves.train().back().step;
  return {first, std::max(last, first + 1), kLeft, kRight};
}

Axis loss_axis(const Curves& curves, double top, double bottom) {
  double low = curves.train().front().value;
  double high = low;
  for (const auto* points : {&curves.train(), &curves.validation()})
    for (const Curves::Point& point : *points) {
      low = std::min(low, point.value);
      high = std::max(high, point.value);
    }
  const double margin = std::max(0.05 * (high - low), 1e-3);
  return {std::max(low - margin, 0.0), high + margin, bottom, top};
}

std::string loss_panel(const Curves& curves) {
  const Panel panel{step_axis(curves), loss_axis(curves, 84, 330)};
  std::string svg = frame(panel, "Loss (nats per token)", 10,
                          [](double value) { return fmt::format("{:.6g}", value); });
  const bool noisy = curves.train().size() > 100;
  svg += line(thin<Curves::Point>(curves.train()), panel, noisy ? "train raw" : "train");
  if (noisy) svg += line(thin<Curves::Point>(smooth(curves.train())), panel, "train");
  svg += key(96, "train-key", fmt::format("train {:.4f}", curves.train().back().value));
  if (curves.validation().empty()) return svg;
  svg += line(curves.validation(), panel, "valid");
  for (const Curves::Point& point : curves.validation())
    svg += fmt::format("<circle class=\"valid-key\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3\"/>\n",
                       panel.x.at(point.step), panel.y.at(point.value));
  return svg +
         key(120, "valid-key", fmt::format("validation {:.4f}", curves.validation().back().value));
}

std::string area(std::span<const Curves::Memory> memory, int band, const Panel& panel) {
  const auto below = [&](const Curves::Memory& at, int bands) {
    double sum = 0;
    for (int i = 0; i < bands; ++i) sum += at.bytes[static_cast<std::size_t>(i)];
    return sum;
  };
  std::string path;
  for (const Curves::Memory& at : memory)
    path += fmt::format("{}{:.1f} {:.1f}", path.empty() ? 'M' : 'L', panel.x.at(at.step),
                        panel.y.at(below(at, band + 1)));
  for (auto at = memory.rbegin(); at != memory.rend(); ++at)
    path += fmt::format("L{:.1f} {:.1f}", panel.x.at(at->step), panel.y.at(below(*at, band)));
  return fmt::format("<path class=\"m{}\" d=\"{}Z\"/>\n", band, path);
}

std::string memory_panel(const Curves& curves) {
  std::vector<Curves::Memory> memory = thin<Curves::Memory>(curves.memory());
  if (memory.size() == 1) memory.push_back({memory[0].step + 1, memory[0].bytes});
  double highest = 1;
  for (const Curves::Memory& at : memory) highest = std::max(highest, total(at));
  const Panel panel{step_axis(curves), {0, 1.05 * highest, 660, 430}};
  std::string svg =
      frame(panel, "Memory at the peak of each step (a rank's maximum)", 2, bytes_label);
  double y = 442;
  for (int band = kMemoryBands - 1; band >= 0; --band) {
    const double bytes = memory.back().bytes[static_cast<std::size_t>(band)];
    if (std::ranges::all_of(
            memory, [&](const auto& at) { return at.bytes[static_cast<std::size_t>(band)] == 0; }))
      continue;
    svg += area(memory, band, panel);
    svg += key(y, fmt::format("m{}", band), band_name(band));
    svg += text(kWidth - 16, y, "y", bytes_label(bytes));
    y += 23;
  }
  return svg;
}

}  // namespace

void Curves::add(const StepMetrics& m) {
  if (!std::isfinite(m.loss)) return;
  const auto step = static_cast<double>(m.step);
  train_.push_back({step, static_cast<double>(m.loss)});
  if (m.validation_loss) validation_.push_back({step, *m.validation_loss});
  Memory memory{step, {}};
  for (std::size_t i = 0; i < ashlar::kCategories; ++i)
    memory.bytes[i] = static_cast<double>(m.at_peak.category[i]);
  memory.bytes[ashlar::kCategories] = static_cast<double>(m.at_peak.fragmentation);
  memory.bytes[ashlar::kCategories + 1] = static_cast<double>(m.at_peak.padding);
  memory_.push_back(memory);
}

std::string band_name(int band) {
  if (band == ashlar::kCategories) return "fragmentation";
  if (band == ashlar::kCategories + 1) return "padding";
  std::string name(name_of(static_cast<ashlar::Category>(band)));
  std::ranges::replace(name, '_', ' ');
  return name;
}

std::string to_svg(const Curves& curves, const std::string& title) {
  std::string svg = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0} {1}\" width=\"{0}\" "
      "height=\"{1}\" "
      "role=\"img\">\n<title>{2}</title>\n",
      kWidth, kHeight, ashlar::markup(title));
  svg += style();
  svg += fmt::format("<rect class=\"back\" width=\"{}\" height=\"{}\"/>\n", kWidth, kHeight);
  svg += text(kLeft, 34, "title", title);
  if (!curves.train().empty()) svg += loss_panel(curves) + memory_panel(curves);
  return svg + "</svg>\n";
}

void write_plot(const std::filesystem::path& path, const std::string& svg) {
  std::ofstream file(path);
  file << svg << std::flush;
  if (!file)
    throw ashlar::InvalidArgument(
        fmt::format("--plot {}: cannot be written: {}", path.string(), std::strerror(errno)));
}

}  // namespace train_gpt
