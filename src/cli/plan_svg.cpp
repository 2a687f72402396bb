#include "cli/plan_svg.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <iterator>

#include "ashlar/memory_resource.hpp"
#include "base/markup.hpp"

namespace ashlar::cli {
namespace {

constexpr double kLeft = 90, kTop = 64, kWidth = 1080, kHeight = 560, kBottom = 56, kRight = 40;

std::uint64_t as_unsigned(std::int64_t number) { return static_cast<std::uint64_t>(number); }

/// From `number` up to the next multiple of `step`.
std::uint64_t to_multiple(std::int64_t number, std::uint64_t step) {
  if (number >= 0) return (step - as_unsigned(number) % step) % step;
  return (0 - as_unsigned(number)) % step;
}

/// 1, 2 or 5 times a power of ten: ten steps or fewer in `span`.
std::uint64_t time_step(std::uint64_t span) {
  for (std::uint64_t power = 1;; power *= 10)
    for (const std::uint64_t factor : {1, 2, 5})
      if (span / (factor * power) <= 10) return factor * power;
}

class Drawing {
 public:
  Drawing(const plan::Table& table, const PlanResult& result, std::int64_t capacity)
      : table_(table),
        result_(result),
        capacity_(capacity),
        top_(std::max({result.plan.height, capacity, std::int64_t{1}})) {
    for (const PlannedBuffer& buffer : table.buffers) {
      begin_ = std::min(begin_, buffer.lower);
      end_ = std::max(end_, buffer.upper);
    }
    if (end_ <= begin_) begin_ = 0, end_ = 1;
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
  /// Unsigned: the span may exceed what an instant can be.
  std::uint64_t since_begin(std::int64_t instant) const {
    return as_unsigned(instant) - as_unsigned(begin_);
  }
  double x(std::int64_t instant) const {
    return kLeft + kWidth * (static_cast<double>(since_begin(instant)) /
                             static_cast<double>(since_begin(end_)));
  }
  double y(std::int64_t offset) const {
    return kTop + kHeight * (1 - static_cast<double>(offset) / static_cast<double>(top_));
  }

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
    add("<text x=\"{}\" y=\"24\" font-size=\"16\">{}</text>\n", kLeft, markup(title));
    add("<text x=\"{}\" y=\"44\">{} buffers in {} ({} bytes), lower bound {} bytes{}; hover for "
        "names</text>\n",
        kLeft, table_.buffers.size(), format_bytes(result_.plan.height), result_.plan.height,
        result_.lower_bound, result_.proved_optimal() ? ", proved optimal" : "");
    add("<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">time</text>\n", kLeft + kWidth / 2,
        kTop + kHeight + 44);
    add("<text transform=\"translate(18 {}) rotate(-90)\" text-anchor=\"middle\">offset</text>\n",
        kTop + kHeight / 2);
  }

  /// Ticks are counted in integers: far from zero a double's step can round to nothing.
  void draw_grid() {
    const auto bytes =
        static_cast<std::int64_t>(std::bit_floor(as_unsigned(std::max(top_ / 6, std::int64_t{1}))));
    for (std::int64_t tick = 0; tick <= top_ / bytes; ++tick)
      add("<path class=\"grid\" d=\"M{} {:.2f}h{}\"/><text x=\"{}\" y=\"{:.2f}\" "
          "text-anchor=\"end\">{}</text>\n",
          kLeft, y(tick * bytes), kWidth, kLeft - 6, y(tick * bytes) + 4,
          format_bytes(tick * bytes));
    const std::uint64_t span = since_begin(end_), step = time_step(span);
    const std::uint64_t first = to_multiple(begin_, step);
    for (std::uint64_t tick = 0; first <= span && tick <= (span - first) / step; ++tick) {
      const auto at = static_cast<std::int64_t>(as_unsigned(begin_) + first + tick * step);
      add("<path class=\"grid\" d=\"M{:.2f} {}v{}\"/><text x=\"{:.2f}\" y=\"{}\" "
          "text-anchor=\"middle\">{}</text>\n",
          x(at), kTop, kHeight, x(at), kTop + kHeight + 18, at);
    }
  }

  void draw_buffer(std::size_t i) {
    const PlannedBuffer& buffer = table_.buffers[i];
    const std::int64_t offset = result_.plan.offsets[i];
    const double left = x(buffer.lower), above = y(offset + buffer.size);
    add("<rect class=\"buffer\" x=\"{:.2f}\" y=\"{:.2f}\" width=\"{:.2f}\" height=\"{:.2f}\" "
        "fill=\"hsl({:.0f} 55% 58%)\"><title>{}: {} ({} bytes) at {}, in use [{}, "
        "{})</title></rect>\n",
        left, above, x(buffer.upper) - left, y(offset) - above,
        std::fmod(static_cast<double>(i) * 137.508, 360.0), markup(table_.ids[i]),
        format_bytes(buffer.size), buffer.size, offset, buffer.lower, buffer.upper);
  }

  void draw_line(std::int64_t bytes, const char* style, const char* name) {
    const double at = y(bytes);
    add("<path class=\"{}\" stroke-width=\"1.5\" d=\"M{} {:.2f}h{}\"><title>{}: {} "
        "bytes</title></path>\n",
        style, kLeft, at, kWidth, name, bytes);
  }

  const plan::Table& table_;
  const PlanResult& result_;
  std::int64_t capacity_;
  std::int64_t begin_ = INT64_MAX, end_ = INT64_MIN;
  std::int64_t top_;
  std::string text_;
};

}  // namespace

std::string plan_svg(const plan::Table& table, const PlanResult& result, std::int64_t capacity,
                     const std::string& title) {
  return Drawing(table, result, capacity).draw(title);
}

}  // namespace ashlar::cli
