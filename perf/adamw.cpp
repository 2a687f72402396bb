// AdamW against a plain loop with the same four reads and three writes per element, in interleaved
// rounds. Prints one JSON object. Flags: --parameters N (100000000), --threads T (measures 1 and 2
// without it), --rounds R (11).
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <vector>

#include "ashlar/buffer.hpp"
#include "ashlar/optimizer.hpp"
#include "hardware.hpp"
#include "runtime/thread_pool.hpp"
#include "timing.hpp"

namespace {

using ashlar::perf::Clock, ashlar::perf::median, ashlar::perf::seconds_since;
using nlohmann::ordered_json;

constexpr double kBytesPerParameter = 28;  // read parameter, gradient, m, v; write parameter, m, v

struct Arrays {
  explicit Arrays(std::int64_t n) : elements(n) {
    for (ashlar::Buffer& buffer : buffers)
      buffer = ashlar::Buffer(ashlar::host_memory(), 4 * n, ashlar::Category::optimizer_state);
  }
  /// Array `which` (parameter, gradient, m, v), elements [begin, end).
  ashlar::TensorView view(std::size_t which, std::int64_t begin, std::int64_t end) const {
    return buffers[which].view(ashlar::DType::f32, {elements}).flat_slice(begin, end - begin);
  }

  std::int64_t elements;
  std::array<ashlar::Buffer, 4> buffers;
};

void fill(const Arrays& a, std::int64_t begin, std::int64_t end) {
  for (std::size_t which = 0; which < 4; ++which) {
    const auto values = a.view(which, begin, end).span<float>();
    for (std::size_t i = 0; i < values.size(); ++i)
      values[i] = 1e-3F * static_cast<float>(i % 1021 + which);
  }
}

#if defined(__x86_64__)
__attribute__((target_clones("avx512f", "avx2", "default")))
#endif
void plain_loop(float* __restrict p, const float* __restrict g, float* __restrict m, float* __restrict v,
                std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) {
    m[i] = 0.9F * m[i] + 0.1F * g[i];
    v[i] = 0.999F * v[i] + 0.001F * g[i];
    p[i] = p[i] - 1e-3F * m[i] - 1e-6F * v[i];
  }
}

void plain(const Arrays& a, std::int64_t begin, std::int64_t end) {
  plain_loop(a.view(0, begin, end).as<float>(), a.view(1, begin, end).as<float>(),
             a.view(2, begin, end).as<float>(), a.view(3, begin, end).as<float>(), end - begin);
}

using Work = std::function<void(std::int64_t begin, std::int64_t end)>;

double seconds_of(ashlar::ThreadPool& pool, std::int64_t elements, const Work& work) {
  const auto start = Clock::now();
  const std::int64_t share = (elements + pool.threads() - 1) / pool.threads();
  pool.parallel(pool.threads(), [&](int t) {
    const std::int64_t begin = std::min(elements, t * share);
    work(begin, std::min(elements, begin + share));
  });
  return seconds_since(start);
}

ordered_json result(double seconds, std::int64_t elements) {
  const auto n = static_cast<double>(elements);
  return {{"seconds_per_1e9_parameters", seconds / n * 1e9},
          {"gigabytes_per_second", kBytesPerParameter * n / seconds * 1e-9}};
}

ordered_json measure(const Arrays& a, int threads, int rounds) {
  ashlar::ThreadPool pool(threads);
  const auto optimizer = ashlar::make_optimizer(ashlar::AdamW{});
  ashlar::StepScalars scalars{.learning_rate = 1e-3, .step = 1, .gradient_scale = 1};
  const Work adamw = [&](std::int64_t begin, std::int64_t end) {
    const std::array state{a.view(2, begin, end), a.view(3, begin, end)};
    const std::array segments{ashlar::Segment{0, end - begin, true}};
    optimizer->step(a.view(0, begin, end), {}, a.view(1, begin, end), state, segments, scalars);
  };
  const Work loop = [&](std::int64_t begin, std::int64_t end) { plain(a, begin, end); };

  seconds_of(pool, a.elements, [&](std::int64_t begin, std::int64_t end) { fill(a, begin, end); });
  std::vector<double> ours;
  std::vector<double> theirs;
  for (int round = -2; round < rounds; ++round) {
    scalars.step = round + 3;
    const double adamw_seconds = seconds_of(pool, a.elements, adamw);
    const double loop_seconds = seconds_of(pool, a.elements, loop);
    if (round < 0) continue;
    ours.push_back(adamw_seconds);
    theirs.push_back(loop_seconds);
  }
  return {{"threads", threads},
          {"adamw", result(median(ours), a.elements)},
          {"plain_loop", result(median(theirs), a.elements)},
          {"bandwidth_ratio", median(theirs) / median(ours)}};
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("AdamW against a plain loop with the same reads and writes");
  std::int64_t parameters = 100'000'000;
  int threads = 0;
  int rounds = 11;
  app.add_option("--parameters", parameters)->check(CLI::PositiveNumber);
  app.add_option("--threads", threads, "1 and 2 without it")->check(CLI::PositiveNumber);
  app.add_option("--rounds", rounds)->check(CLI::PositiveNumber);
  CLI11_PARSE(app, argc, argv);

  const Arrays arrays(parameters);
  ordered_json results = ordered_json::array();
  for (const int count : threads > 0 ? std::vector{threads} : std::vector{1, 2})
    results.push_back(measure(arrays, count, rounds));
  const ordered_json report{{"benchmark", "adamw"},
                            {"hardware", hardware()},
                            {"parameters", parameters},
                            {"rounds", rounds},
                            {"results", results}};
  fmt::print("{}\n", report.dump(2));
}
