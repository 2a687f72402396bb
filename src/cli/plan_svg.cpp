#include "cli/plan_svg.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>

#include "ashlar/memory_resource.hpp"

namespace ashlar::cli {
namespace {

constexpr double kLeft = 90, kTop = 64, kWidth = 1080, kHeight = 560, kBottom = 56, kRight = 40;

std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '&':
        out += "&amp;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
    }
  }
  return out;
}

/// Steps of 1, 2 or 5 times a power of `base`'s ten, about `wanted` of them.
double tick_step(double span, double wanted) {
  const double power = std::pow(10, std::floor(std::log10(std::max(span / wanted, 1.0))));
  for (const double factor : {1.0, 2.0, 5.0})
    if (span / (factor * power) <= wanted) return factor * power;
  return 10 * power;
}

class Drawing {
 public:
  Drawing(const plan::Table& table, const PlanResult& result, std::int64_t capacity)
      : table_(table), result_(result), capacity_(capacity) {
    for (const PlannedBuffer& buffer : table.buffers) {
      begin_ = std::min(begin_, static_cast<double>(buffer.lower));
      end_ = std::max(end_, static_cast<double>(buffer.upper));
    }
    if (end_ <= begin_) begin_ = 0, end_ = 1;
    top_ = static_cast<double>(std::max({result.plan.height, capacity, std::int64_t{1}}));
  }

  std::string draw(const std::string& title) {
    open(title);
    draw_grid();
    for (std::size_t i = 0; i < table_.buffers.size(); ++i) draw_buffer(i);
    draw_line(result_.lower_bound, "bound", "lower bound");
    if (capacity_ > 0) draw_line(capacity_, "capacity", "capacity");
    text_ += "</svg>\n";
    return std::move(text_);
  }

 private:
  template <typename... Arguments>
  void add(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
    fmt::format_to(std::back_inserter(text_), format, std::forward<Arguments>(arguments)...);
  }
  double x(double instant) const { return kLeft + kWidth * (instant - begin_) / (end_ - begin_); }
  double y(double offset) const { return kTop + kHeight * (1 - offset / top_); }

  void open(const std::string& title) {
    add("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {}\" "
        "font-family=\"system-ui,sans-serif\" font-size=\"12\">\n",
        kLeft + kWidth + kRight, kTop + kHeight + kBottom);
    text_ +=
        "<style>\nsvg{background:#fff;color:#222}text{fill:currentColor}"
        ".grid{stroke:#8884;stroke-width:1}.bound{stroke:#0a7;stroke-dasharray:6 4}"
        ".capacity{stroke:#c22}.buffer{stroke:#fff;stroke-width:.5}.buffer:hover{stroke:#000;"
        "stroke-width:2}\n@media(prefers-color-scheme:dark){svg{background:#16181c;color:#ddd}"
        ".buffer{stroke:#16181c}.buffer:hover{stroke:#fff}}\n</style>\n";
    add("<text x=\"{}\" y=\"24\" font-size=\"16\">{}</text>\n", kLeft, escaped(title));
    add("<text x=\"{}\" y=\"44\">{} buffers in {} ({} bytes), lower bound {} bytes{}; hover for "
        "names</text>\n",
        kLeft, table_.buffers.size(), format_bytes(result_.plan.height), result_.plan.height,
        result_.lower_bound, result_.proved_optimal() ? ", proved optimal" : "");
    add("<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">time</text>\n", kLeft + kWidth / 2,
        kTop + kHeight + 44);
    add("<text transform=\"translate(18 {}) rotate(-90)\" text-anchor=\"middle\">offset</text>\n",
        kTop + kHeight / 2);
  }

  void draw_grid() {
    const double bytes = std::exp2(std::floor(std::log2(std::max(top_ / 6, 1.0))));
    for (double at = 0; at <= top_; at += bytes)
      add("<path class=\"grid\" d=\"M{} {:.2f}h{}\"/><text x=\"{}\" y=\"{:.2f}\" "
          "text-anchor=\"end\">{}</text>\n",
          kLeft, y(at), kWidth, kLeft - 6, y(at) + 4, format_bytes(static_cast<std::int64_t>(at)));
    const double step = tick_step(end_ - begin_, 10);
    for (double at = std::ceil(begin_ / step) * step; at <= end_; at += step)
      add("<path class=\"grid\" d=\"M{:.2f} {}v{}\"/><text x=\"{:.2f}\" y=\"{}\" "
          "text-anchor=\"middle\">{:.0f}</text>\n",
          x(at), kTop, kHeight, x(at), kTop + kHeight + 18, at);
  }

  void draw_buffer(std::size_t i) {
    const PlannedBuffer& buffer = table_.buffers[i];
    const auto offset = static_cast<double>(result_.plan.offsets[i]);
    const auto size = static_cast<double>(buffer.size);
    const double left = x(static_cast<double>(buffer.lower));
    add("<rect class=\"buffer\" x=\"{:.2f}\" y=\"{:.2f}\" width=\"{:.2f}\" height=\"{:.2f}\" "
        "fill=\"hsl({:.0f} 55% 58%)\"><title>{}: {} ({} bytes) at {}, in use [{}, "
        "{})</title></rect>\n",
        left, y(offset + size), x(static_cast<double>(buffer.upper)) - left, kHeight * size / top_,
        std::fmod(static_cast<double>(i) * 137.508, 360.0), escaped(table_.ids[i]),
        format_bytes(buffer.size), buffer.size, result_.plan.offsets[i], buffer.lower,
        buffer.upper);
  }

  void draw_line(std::int64_t bytes, const char* style, const char* name) {
    const double at = y(static_cast<double>(bytes));
    add("<path class=\"{}\" stroke-width=\"1.5\" d=\"M{} {:.2f}h{}\"><title>{}: {} "
        "bytes</title></path>\n",
        style, kLeft, at, kWidth, name, bytes);
  }

  const plan::Table& table_;
  const PlanResult& result_;
  std::int64_t capacity_;
  double begin_ = std::numeric_limits<double>::max(), end_ = std::numeric_limits<double>::lowest();
  double top_ = 1;
  std::string text_;
};

}  // namespace

std::string plan_svg(const plan::Table& table, const PlanResult& result, std::int64_t capacity,
                     const std::string& title) {
  return Drawing(table, result, capacity).draw(title);
}

}  // namespace ashlar::cli
