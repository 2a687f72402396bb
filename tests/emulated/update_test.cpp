// The update of a flat against the rules of the CPU, and what leads to it: sums of squares, the
// norm, accumulation, packing.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "ashlar/optimizer.hpp"
#include "emulated/device_call.hpp"
#include "ops/harness.hpp"

namespace ashlar::test {
namespace {

template <typename T>
std::vector<T> random(std::int64_t n, double low, double high, std::uint64_t seed) {
  std::vector<T> values;
  for (const double v : random_values(n, low, high, seed))
    values.push_back(static_cast<T>(static_cast<float>(v)));
  return values;
}

template <typename T>
TensorView view_of(std::vector<T>& values) {
  return {values.data(), dtype_of<T>, {static_cast<std::int64_t>(values.size())}};
}

template <typename T>
std::vector<T> part_of(const std::vector<std::byte>& bytes, std::size_t& at, std::size_t n) {
  std::vector<T> values(n);
  if (n > 0) std::memcpy(values.data(), bytes.data() + at, n * sizeof(T));
  at += n * sizeof(T);
  return values;
}

/// Segments at places that are no multiples of a pack, with gaps inside of a pack and at the end.
std::vector<Segment> segments_of(std::int64_t n) {
  const std::int64_t a = n / 3, b = std::min(n, n / 2 + 3), c = std::max(b, n - 5);
  return {{0, a, true}, {std::min(a + 2, b), b, false}, {b, c, true}};
}

struct Flat {
  std::vector<float> master, state0, state1, average;
  std::vector<bf16> parameter;
};

template <typename Gradient>
void check_update(const OptimizerConfig& config, Attributes attributes, std::int64_t n,
                  std::int64_t step, bool narrow) {
  CAPTURE(n);
  CAPTURE(step);
  auto gradient = random<Gradient>(n, -1, 1, 11);
  const auto rule = make_optimizer(config);
  const std::size_t states = rule->states().size();
  Flat flat{random<float>(n, -1, 1, 12), random<float>(n, -1, 1, 13), random<float>(n, 0, 1, 14),
            random<float>(n, -1, 1, 15), random<bf16>(n, -1, 1, 16)};
  double factor = 0.75;
  std::vector<std::int64_t> list;
  for (const Segment& s : segments_of(n)) list.insert(list.end(), {s.begin, s.end, s.decay});
  attributes.set("segments", list);
  attributes.set("sharded", std::int64_t{0});

  std::vector<std::vector<float>*> kept{&flat.state0, &flat.state1, &flat.average};
  kept.resize(states);
  DeviceCall call{.run = cuda::update, .attributes = attributes};
  call.inputs = {view_of(gradient), TensorView(&factor, DType::f64, {}), view_of(flat.master)};
  for (std::vector<float>* state : kept) call.inputs.push_back(view_of(*state));
  if (narrow) call.inputs.push_back(view_of(flat.parameter));
  for (std::size_t i = 2; i < call.inputs.size(); ++i) {
    call.outputs.push_back({call.inputs[i].dtype, call.inputs[i].shape});
    call.shared.emplace_back(static_cast<int>(i) - 2, static_cast<int>(i));
  }
  const RunScalars now{.step = step, .learning_rate = 0.01};
  call.context.on_device = &now;
  const std::vector<std::byte> actual = run_on_device(call);
  call.misaligned = true;
  CHECK(run_once(call) == actual);

  for (const Segment& s : segments_of(n)) {
    const std::int64_t count = s.end - s.begin;
    std::vector<TensorView> state;
    for (std::vector<float>* values : kept)
      state.push_back(view_of(*values).flat_slice(s.begin, count));
    const Segment whole{0, count, s.decay};
    rule->step(view_of(flat.master).flat_slice(s.begin, count),
               narrow ? view_of(flat.parameter).flat_slice(s.begin, count) : TensorView(),
               view_of(gradient).flat_slice(s.begin, count), state, {&whole, 1},
               {0.01, step, factor});
  }
  std::size_t at = 0;
  const auto size = static_cast<std::size_t>(n);
  const auto close = [&](std::vector<float>& expected) {
    const auto values = part_of<float>(actual, at, size);
    for (std::size_t i = 0; i < size; ++i) {
      CAPTURE(i);
      CHECK(std::abs(values[i] - expected[i]) <= 2e-7F * std::max(1.0F, std::abs(expected[i])));
    }
    return values;
  };
  const auto master = close(flat.master);
  for (std::vector<float>* state : kept) close(*state);
  if (!narrow) return;
  const auto parameter = part_of<bf16>(actual, at, size);
  std::vector<bf16> expected = flat.parameter;
  for (const Segment& segment : segments_of(n))
    for (std::int64_t i = segment.begin; i < segment.end; ++i)
      expected[static_cast<std::size_t>(i)] = bf16(master[static_cast<std::size_t>(i)]);
  for (std::size_t i = 0; i < size; ++i) {
    CAPTURE(i);
    CHECK(parameter[i].bits == expected[i].bits);
  }
}

}  // namespace

TEST_CASE("kernels: AdamW in one launch equals the CPU's rule, segment by segment") {
  for (const std::int64_t n : {1, 7, 8, 97, 4099})
    for (const std::int64_t step : {1, 9})
      for (const double ema : {0.0, 0.5}) {
        const AdamW rule{0.01, 0.9, 0.99, 1e-6, 0.1, ema};
        const Attributes attributes{{"beta1", 0.9},
                                    {"beta2", 0.99},
                                    {"epsilon", 1e-6},
                                    {"weight_decay", 0.1},
                                    {"ema", ema}};
        check_update<float>(rule, attributes, n, step, false);
        check_update<bf16>(rule, attributes, n, step, true);
      }
}

TEST_CASE("kernels: SGD with and without momentum equals the CPU's rule") {
  for (const std::int64_t n : {5, 333})
    for (const double momentum : {0.0, 0.9})
      for (const bool nesterov : {false, true}) {
        if (nesterov && momentum == 0) continue;
        const Sgd rule{0.01, momentum, 0.1, nesterov, 0};
        const Attributes attributes{{"momentum", momentum},
                                    {"weight_decay", 0.1},
                                    {"nesterov", std::int64_t{nesterov}},
                                    {"ema", 0.0}};
        check_update<float>(rule, attributes, n, 2, true);
        check_update<f16>(rule, attributes, n, 2, false);
      }
}

TEST_CASE("kernels: an update of more segments than one launch holds") {
  constexpr std::int64_t kSegments = 301, kWidth = 3;
  auto gradient = random<float>(kSegments * kWidth, -1, 1, 1);
  auto master = random<float>(kSegments * kWidth, -1, 1, 2);
  std::vector<std::int64_t> list;
  for (std::int64_t s = 0; s < kSegments; ++s)
    list.insert(list.end(), {s * kWidth, (s + 1) * kWidth, s % 2});
  DeviceCall call{.run = cuda::update,
                  .attributes = {{"momentum", 0.0},
                                 {"weight_decay", 0.5},
                                 {"nesterov", std::int64_t{0}},
                                 {"ema", 0.0},
                                 {"segments", list},
                                 {"sharded", std::int64_t{0}}}};
  call.context.learning_rate = 0.1;
  call.inputs = {view_of(gradient), TensorView(), view_of(master)};
  call.outputs = {{DType::f32, {kSegments * kWidth}}};
  call.shared = {{0, 2}};
  std::size_t at = 0;
  const auto updated = part_of<float>(run_on_device(call), at, master.size());
  for (std::size_t i = 0; i < master.size(); ++i) {
    const float decay = i / kWidth % 2 == 1 ? 0.5F : 0.0F;
    CHECK(updated[i] == doctest::Approx(master[i] - 0.1F * (gradient[i] + decay * master[i])));
  }
}

TEST_CASE("kernels: an update of more elements than its blocks take at once") {
  constexpr std::int64_t kElements = (1 << 20) + 1029, kPlain = (1 << 20) + 3;
  auto gradient = random<float>(kElements, -1, 1, 1);
  auto master = random<float>(kElements, -1, 1, 2);
  DeviceCall call{
      .run = cuda::update,
      .attributes = {{"momentum", 0.0},
                     {"weight_decay", 0.5},
                     {"nesterov", std::int64_t{0}},
                     {"ema", 0.0},
                     {"segments", std::vector<std::int64_t>{0, kPlain, 0, kPlain, kElements, 1}},
                     {"sharded", std::int64_t{0}}}};
  call.context.learning_rate = 0.125;
  call.inputs = {view_of(gradient), TensorView(), view_of(master)};
  call.outputs = {{DType::f32, {kElements}}};
  call.shared = {{0, 2}};
  std::size_t at = 0, different = 0;
  const auto updated = part_of<float>(run_once(call), at, master.size());
  for (std::size_t i = 0; i < master.size(); ++i) {
    const float decay = i >= std::size_t{kPlain} ? 0.5F : 0.0F;
    const float expected = master[i] - 0.125F * (gradient[i] + decay * master[i]);
    different += std::abs(updated[i] - expected) > 2e-7F;
  }
  CHECK(different == 0);
}

TEST_CASE("kernels: sums of squares in two stages, and the norm") {
  for (const std::int64_t n : {0, 1, 13, 1024, 5000}) {
    auto x = random<bf16>(n, -2, 2, 3);
    double expected = 0;
    for (const bf16 v : x) expected += static_cast<double>(v) * static_cast<double>(v);
    DeviceCall call{.run =
                        [](const KernelArguments& a) {
                          cuda::sum_of_squares(a.context.stream, a.inputs[0],
                                               a.outputs[0].as<double>(), a.workspace);
                        },
                    .inputs = {view_of(x)},
                    .outputs = {{DType::f64, {}}},
                    .workspace = cuda::sum_of_squares_workspace(n)};
    std::size_t at = 0;
    CHECK(part_of<double>(run_on_device(call), at, 1)[0] == doctest::Approx(expected));
  }
  std::vector<double> squares{4, 5, 16, 11};
  const DeviceCall norm{.run = cuda::gradient_norm,
                        .attributes = {{"ranks", std::int64_t{2}}, {"clip", 1.5}},
                        .inputs = {view_of(squares)},
                        .outputs = {{DType::f64, {}}, {DType::f64, {}}}};
  std::size_t at = 0;
  const auto results = part_of<double>(run_on_device(norm), at, 2);
  CHECK(results[0] == doctest::Approx(6));
  CHECK(results[1] == doctest::Approx(1.5 / 6));
}

TEST_CASE("kernels: gradients are accumulated over micro-batches, parts are packed") {
  auto sum = random<float>(101, -1, 1, 5), x = random<float>(101, -1, 1, 6);
  DeviceCall call{.run = cuda::accumulate,
                  .inputs = {view_of(sum), view_of(x)},
                  .outputs = {{DType::f32, {101}}},
                  .shared = {{0, 0}}};
  for (const std::int64_t micro_batch : {0, 1}) {
    call.context.micro_batch = micro_batch;
    std::size_t at = 0;
    const auto result = part_of<float>(run_on_device(call), at, 101);
    for (std::size_t i = 0; i < 101; ++i)
      CHECK(result[i] == (micro_batch == 0 ? x[i] : sum[i] + x[i]));
  }
  auto a = random<bf16>(5, -1, 1, 7), b = random<bf16>(37, -1, 1, 8);
  const DeviceCall packed{
      .run = cuda::pack,
      .attributes = {{"offsets", std::vector<std::int64_t>{3, 16}}, {"elements", std::int64_t{64}}},
      .inputs = {TensorView(), view_of(a), view_of(b)},
      .outputs = {{DType::bf16, {64}}}};
  std::size_t at = 0;
  const auto flat = part_of<bf16>(run_on_device(packed), at, 64);
  for (std::size_t i = 0; i < 64; ++i) {
    const bool in_a = i >= 3 && i < 8, in_b = i >= 16 && i < 53;
    CHECK(flat[i].bits == (in_a ? a[i - 3].bits : in_b ? b[i - 16].bits : 0));
  }
}

}  // namespace ashlar::test
