// What a step of a trillion parameters needs at stages 0 to 3 on 64 to 4,096 devices, and where its
// time goes; nothing is allocated and nothing runs. With a folder as argument, two plots go there.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "ashlar/memory_resource.hpp"
#include "ashlar/nn/language_model.hpp"
#include "ashlar/run_main.hpp"
#include "sharding/compile_step.hpp"
#include "simulate/simulation.hpp"

using namespace ashlar;

namespace {

constexpr std::int64_t kBatch = 1, kSequence = 2048;
constexpr std::array kRanks{64, 256, 1024, 4096};

struct Point {
  int stage, ranks;
  PerCategory<std::int64_t> states;
  simulate::Simulation step;
};

/// The whole of it: model code becomes instructions, instructions are priced, clocks are swept.
Point look_at(const LanguageModel& model, int stage, int ranks, const simulate::Cluster& cluster) {
  TrainConfig config;
  config.zero.stage = stage;
  config.precision = {DType::bf16, DType::bf16};
  config.recompute = Recompute::per_unit;
  const ModelTrace how{kBatch, kSequence, DType::bf16, 0, {}};
  const CompiledStep step = compile_step([&](Tracer& t) { return model.loss(t, how); }, config,
                                         ranks, Backend{"x86_64", 1});
  const simulate::Workload work = simulate::price(step.programs[0], 1, ranks, cluster);
  return {stage, ranks, step.states.by_category(),
          simulate::simulate(work, simulate::Stragglers("", ranks), true, kBatch * kSequence,
                             step.planned().total, cluster)};
}

double gib(std::int64_t bytes) { return static_cast<double>(bytes) / (1 << 30); }

std::int64_t sum(const PerCategory<std::int64_t>& bytes) {
  std::int64_t all = 0;
  for (const std::int64_t part : bytes) all += part;
  return all;
}

void print(const std::vector<Point>& points, const simulate::Cluster& cluster) {
  fmt::print("{:>5} {:>6} {:>12} {:>12} {:>5} {:>8} {:>6} {:>9} {:>9}\n", "stage", "ranks",
             "states GiB", "peak GiB", "fits", "s/step", "MFU", "compute s", "exposed s");
  for (const Point& p : points) {
    const bool fits =
        static_cast<double>(p.step.peak_bytes_per_rank) <= cluster.device.memory_bytes;
    fmt::print("{:>5} {:>6} {:>12.1f} {:>12.1f} {:>5} {:>8.2f} {:>5.1f}% {:>9.2f} {:>9.2f}\n",
               p.stage, p.ranks, gib(sum(p.states)), gib(p.step.peak_bytes_per_rank),
               fits ? "yes" : "no", p.step.seconds_per_step, 100 * p.step.mfu,
               p.step.critical_busy_seconds, p.step.exposed_communication_seconds);
  }
}

/// Bars of `lower` and, on them, the rest up to `whole`; a group per number of ranks. Heights
/// are logarithms where stages differ by thousands.
template <typename Lower, typename Whole>
std::string bars(const std::vector<Point>& points, const std::string& title,
                 const std::string& legend, const char* unit, bool logarithmic, Lower lower,
                 Whole whole) {
  constexpr double kBase = 330, kHeight = 260;
  const auto scaled = [&](double x) { return logarithmic ? std::log10(1 + x) : x; };
  double most = 0;
  for (const Point& p : points) most = std::max(most, whole(p));
  std::string svg =
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 820 380\" "
      "font-family=\"system-ui,sans-serif\" font-size=\"11\"><style>svg{background:#fff;color:#222}"
      "text{fill:currentColor}.a{fill:#0a7}.b{fill:#e90}"
      "@media(prefers-color-scheme:dark){svg{background:#16181c;color:#ddd}}</style>\n";
  svg += fmt::format("<text x=\"30\" y=\"24\" font-size=\"15\">{}</text>\n", title);
  svg += fmt::format("<text x=\"30\" y=\"44\">{}</text>\n", legend);
  for (std::size_t i = 0; i < points.size(); ++i) {
    const Point& p = points[i];
    const auto group = static_cast<double>(std::ranges::find(kRanks, p.ranks) - kRanks.begin());
    const double x = 40 + group * 195 + p.stage * 42;
    const double low = kHeight * scaled(lower(p)) / scaled(most);
    const double high = kHeight * scaled(whole(p)) / scaled(most);
    svg += fmt::format(
        "<rect class=\"b\" x=\"{0:.0f}\" y=\"{1:.1f}\" width=\"36\" height=\"{2:.1f}\"/>"
        "<rect class=\"a\" x=\"{0:.0f}\" y=\"{3:.1f}\" width=\"36\" height=\"{4:.1f}\"/>"
        "<text x=\"{5:.0f}\" y=\"{6:.1f}\" text-anchor=\"middle\">{7:.0f}</text>"
        "<text x=\"{5:.0f}\" y=\"{8:.0f}\" text-anchor=\"middle\">{9}</text>\n",
        x, kBase - high, high - low, kBase - low, low, x + 18, kBase - high - 4, whole(p),
        kBase + 14, p.stage);
    if (p.stage == 0)
      svg += fmt::format("<text x=\"{:.0f}\" y=\"{:.0f}\">stage, on {} devices ({})</text>\n", x,
                         kBase + 32, p.ranks, unit);
  }
  return svg + "</svg>\n";
}

void draw(const std::vector<Point>& points, const std::filesystem::path& folder) {
  std::ofstream(folder / "trillion_bytes.svg") << bars(
      points, "Bytes per device of a step of 1T parameters",
      "lower: parameters, gradients and optimizer state; upper: what comes and goes (logarithmic)",
      "GiB", true, [](const Point& p) { return gib(sum(p.states)); },
      [](const Point& p) { return gib(p.step.peak_bytes_per_rank); });
  std::ofstream(folder / "trillion_time.svg") << bars(
      points, "Seconds per step of 1T parameters", "lower: kernels; upper: waiting for collectives",
      "s", false, [](const Point& p) { return p.step.critical_busy_seconds; },
      [](const Point& p) { return p.step.seconds_per_step; });
}

int walk(int argc, char** argv) {
  const LanguageModel model = language_model("megatron-1t");
  const simulate::Cluster cluster = simulate::cluster("dgx-a100");
  fmt::print("{} on {}: {} sequence of {} tokens per device, bf16, AdamW, whole units recomputed\n",
             model.name(), cluster.name, kBatch, kSequence);
  std::vector<Point> points;
  for (const int ranks : kRanks) {
    for (int stage = 0; stage <= 3; ++stage)
      points.push_back(look_at(model, stage, ranks, cluster));
  }
  print(points, cluster);
  if (argc > 1) draw(points, argv[1]);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return run_main("trillion", [&] { return walk(argc, argv); });
}
