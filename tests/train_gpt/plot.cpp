#include "train_gpt/plot.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <fstream>
#include <iterator>
#include <limits>
#include <sstream>

#include "ashlar/error.hpp"
#include "support/temporary_folder.hpp"
#include "train_gpt/axis.hpp"

using namespace train_gpt;

namespace {

Curves curves(int steps, bool validated) {
  Curves all;
  for (int step = 1; step <= steps; ++step) {
    StepMetrics m;
    m.step = step;
    m.loss = static_cast<float>(1 + 4.0 / step);
    if (validated && step % 10 == 0) m.validation_loss = 1.5;
    m.at_peak = {{100 << 20, 50 << 20, 0, 0, 30 << 20, 0, 0, 0}, 4 << 20, 0};
    all.add(m);
  }
  return all;
}

/// What stands between `open` and the next `close`, at every place.
std::vector<std::string> between(const std::string& text, const std::string& open, char close) {
  std::vector<std::string> parts;
  for (std::size_t at = text.find(open); at != std::string::npos; at = text.find(open, at + 1)) {
    const std::size_t begin = at + open.size();
    parts.push_back(text.substr(begin, text.find(close, begin) - begin));
  }
  return parts;
}

std::vector<double> numbers(std::string path) {
  std::ranges::replace_if(
      path, [](char c) { return std::isalpha(c) != 0; }, ' ');
  std::istringstream stream(path);
  return {std::istream_iterator<double>(stream), {}};
}

/// Tags opened and not closed.
int unbalanced(const std::string& svg) {
  int depth = 0;
  for (const std::string& tag : between(svg, "<", '>'))
    if (!tag.ends_with('/')) depth += tag.starts_with('/') ? -1 : 1;
  return depth;
}

}  // namespace

TEST_CASE(
    "plot: any length of run gives a closed picture within its frame, small and self-contained") {
  for (const int steps : {0, 1, 2, 60, 5000})
    for (const bool validated : {false, true}) {
      const std::string svg = to_svg(curves(steps, validated), "tiny <&> fp32");
      CHECK(svg.starts_with("<svg xmlns"));
      CHECK(svg.ends_with("</svg>\n"));
      CHECK(unbalanced(svg) == 0);
      CHECK(svg.size() < 400'000);
      CHECK(!contains(svg, "href"));
      CHECK(!contains(svg, "nan"));
      CHECK(contains(svg, "tiny &lt;&amp;&gt; fp32"));
      CHECK(contains(svg, "prefers-color-scheme:dark"));
      for (const std::string& path : between(svg, " d=\"", '"'))
        for (const double at : numbers(path)) {
          CHECK(at >= 0);
          CHECK(at <= 960);
        }
      CHECK(contains(svg, ">validation 1.5000<") == (validated && steps >= 10));
    }
}

TEST_CASE("plot: bands that hold something are in the legend, the others are not") {
  const std::string svg = to_svg(curves(20, false), "t");
  for (const char* name : {">parameter<", ">gradient<", ">activation<", ">fragmentation<"})
    CHECK(contains(svg, name));
  for (const char* name : {">padding<", ">workspace<", ">input<"}) CHECK(!contains(svg, name));
  CHECK(contains(svg, ">100 MiB<"));
}

TEST_CASE("plot: areas are stacked: a band begins where the one below ends") {
  const std::string svg = to_svg(curves(2, false), "t");
  const auto corners = [&](const std::string& band) {
    const auto paths = between(svg, "class=\"" + band + "\" d=\"", '"');
    REQUIRE(paths.size() == 1);
    const auto points = numbers(paths[0]);  // left top, right top, right bottom, left bottom
    REQUIRE(points.size() == 8);
    return std::pair{points[1], points[7]};
  };
  const auto [top0, bottom0] = corners("m0");
  const auto [top1, bottom1] = corners("m1");
  const auto [top4, bottom4] = corners("m4");
  CHECK(bottom0 == 660);
  CHECK(top0 == bottom1);
  CHECK(top1 == bottom4);
  CHECK((bottom0 - top0) / (bottom1 - top1) == doctest::Approx(2).epsilon(0.01));
  CHECK((bottom4 - top4) / (bottom1 - top1) == doctest::Approx(0.6).epsilon(0.01));
}

TEST_CASE("plot: a loss that is not finite leaves no mark") {
  Curves all = curves(3, false);
  StepMetrics m;
  m.step = 4;
  m.loss = std::numeric_limits<float>::quiet_NaN();
  all.add(m);
  CHECK(all.train().size() == 3);
}

TEST_CASE("plot: ticks are round, within the range and about as many as asked") {
  CHECK(ticks(0, 10, 5) == std::vector<double>{0, 2, 4, 6, 8, 10});
  CHECK(ticks(0, 100, 5, 2) == std::vector<double>{0, 32, 64, 96});
  for (const double low : {0.0, 1.3, 57.0})
    for (const double range : {1e-3, 0.7, 3.0, 12345.0, 1e9}) {
      const auto values = ticks(low, low + range, 6);
      CHECK(values.size() >= 2);
      CHECK(values.size() <= 8);
      CHECK(values.front() >= low - 1e-9 * range);
      CHECK(values.back() <= low + range * (1 + 1e-6));
    }
}

TEST_CASE("plot: a file that cannot be written is named") {
  CHECK(contains(message_of<ashlar::InvalidArgument>([] { write_plot("/nowhere/p.svg", "x"); }),
                 "--plot /nowhere/p.svg: cannot be written"));
  CHECK(contains(message_of<ashlar::InvalidArgument>([] { write_plot("/dev/full", "x"); }),
                 "No space left"));
  const TemporaryFolder folder;
  write_plot(folder.path / "p.svg", "picture");
  std::string text;
  std::getline(std::ifstream(folder.path / "p.svg"), text);
  CHECK(text == "picture");
}
