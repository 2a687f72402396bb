#include "cli/sweep.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>

#include "ashlar/error.hpp"
#include "base/markup.hpp"
#include "base/parse_number.hpp"
#include "base/printable.hpp"

namespace ashlar::cli {
namespace {

using simulate::Simulation;

constexpr double kLeft = 90, kTop = 60, kWidth = 720, kHeight = 420;

double rate(const Simulation& point) {
  return point.tokens_per_second_per_rank * static_cast<double>(point.ranks);
}

/// Both axes logarithmic, over whole decades.
struct Axes {
  double x0, x1, y0, y1;
  explicit Axes(std::span<const Simulation> points) {
    const double first = static_cast<double>(points.front().ranks);
    const double last = static_cast<double>(points.back().ranks);
    x0 = std::floor(std::log10(first));
    x1 = std::max(std::ceil(std::log10(last)), x0 + 1);
    double low = rate(points.front()), high = rate(points.front()) * last / first;
    for (const Simulation& point : points) low = std::min(low, rate(point));
    y0 = std::floor(std::log10(low));
    y1 = std::max(std::ceil(std::log10(high)), y0 + 1);
  }
  double x(double ranks) const { return kLeft + kWidth * (std::log10(ranks) - x0) / (x1 - x0); }
  double y(double tokens) const {
    return kTop + kHeight * (1 - (std::log10(tokens) - y0) / (y1 - y0));
  }
};

}  // namespace

std::vector<int> sweep_ranks(const std::string& text, int devices_per_node) {
  const std::size_t dots = text.find("..");
  int first = 0, last = 0;
  if (!text.starts_with("ranks=") || dots == std::string::npos ||
      !parse_number(std::string_view(text).substr(6, dots - 6), first) ||
      !parse_number(std::string_view(text).substr(dots + 2), last) || first < 1 || first > last) {
    throw InvalidArgument(fmt::format(
        "--sweep '{}': give ranks=FIRST..LAST, such as ranks=64..100000", printable(text)));
  }
  std::vector<int> all;
  for (std::int64_t ranks = first; ranks < last; ranks *= 2) {
    const auto n = static_cast<int>(ranks);
    all.push_back(n <= devices_per_node ? n : n - n % devices_per_node);
  }
  all.push_back(last);
  return all;
}

std::string sweep_csv(std::span<const Simulation> points) {
  std::string text =
      "ranks,seconds_per_step,tokens_per_second_per_rank,mfu,hfu,exposed_communication_seconds,"
      "peak_bytes_per_rank,energy_joules\n";
  for (const Simulation& p : points)
    fmt::format_to(std::back_inserter(text), "{},{},{},{},{},{},{},{}\n", p.ranks,
                   p.seconds_per_step, p.tokens_per_second_per_rank, p.mfu, p.hfu,
                   p.exposed_communication_seconds, p.peak_bytes_per_rank, p.energy_joules);
  return text;
}

std::string sweep_svg(std::span<const Simulation> points, const std::string& title) {
  const Axes axes(points);
  std::string text;
  const auto add = [&]<typename... T>(fmt::format_string<T...> format, T&&... arguments) {
    fmt::format_to(std::back_inserter(text), format, std::forward<T>(arguments)...);
    text += '\n';
  };
  add("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {}\" "
      "font-family=\"system-ui,sans-serif\" font-size=\"12\">",
      kLeft + kWidth + 40, kTop + kHeight + 60);
  text +=
      "<style>svg{background:#fff;color:#222}text{fill:currentColor}.grid{stroke:#8884}"
      ".ideal{stroke:#888;stroke-dasharray:6 4;fill:none}.run{stroke:#0a7;stroke-width:2;fill:none}"
      "circle{fill:#0a7}@media(prefers-color-scheme:dark){svg{background:#16181c;color:#ddd}}"
      "</style>\n";
  add("<text x=\"{}\" y=\"28\" font-size=\"16\">{}</text>", kLeft, markup(printable(title)));
  for (double d = axes.x0; d <= axes.x1; ++d)
    add("<path class=\"grid\" d=\"M{:.1f} {}v{}\"/><text x=\"{:.1f}\" y=\"{}\" "
        "text-anchor=\"middle\">{:.0f}</text>",
        axes.x(std::pow(10, d)), kTop, kHeight, axes.x(std::pow(10, d)), kTop + kHeight + 18,
        std::pow(10, d));
  for (double d = axes.y0; d <= axes.y1; ++d)
    add("<path class=\"grid\" d=\"M{} {:.1f}h{}\"/><text x=\"{}\" y=\"{:.1f}\" "
        "text-anchor=\"end\">1e{:.0f}</text>",
        kLeft, axes.y(std::pow(10, d)), kWidth, kLeft - 6, axes.y(std::pow(10, d)) + 4, d);
  const double first = static_cast<double>(points.front().ranks);
  const double last = static_cast<double>(points.back().ranks);
  add("<path class=\"ideal\" d=\"M{:.1f} {:.1f}L{:.1f} {:.1f}\"><title>ideal</title></path>",
      axes.x(first), axes.y(rate(points.front())), axes.x(last),
      axes.y(rate(points.front()) * last / first));
  std::string path;
  for (const Simulation& point : points)
    path += fmt::format("{}{:.1f} {:.1f}", path.empty() ? "M" : "L",
                        axes.x(static_cast<double>(point.ranks)), axes.y(rate(point)));
  add("<path class=\"run\" d=\"{}\"/>", path);
  for (const Simulation& point : points)
    add("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"4\"><title>{} ranks: {:.4g} s per step, {:.1f} % "
        "MFU</title></circle>",
        axes.x(static_cast<double>(point.ranks)), axes.y(rate(point)), point.ranks,
        point.seconds_per_step, 100 * point.mfu);
  add("<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">ranks</text>", kLeft + kWidth / 2,
      kTop + kHeight + 42);
  add("<text transform=\"translate(20 {}) rotate(-90)\" text-anchor=\"middle\">tokens per second, "
      "all ranks</text>\n</svg>",
      kTop + kHeight / 2);
  return text;
}

}  // namespace ashlar::cli
