// The update of flats against the rules of the CPU, and what leads to it: sums of squares, the
// norm, accumulation, packing.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <list>
#include <span>
#include <utility>

#include "ashlar/optimizer.hpp"
#include "emulated/device_call.hpp"
#include "emulated/update_apart.hpp"
#include "ops/harness.hpp"
#include "runtime/thread_pool.hpp"
#include "sharding/collective_ops.hpp"

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
void check_update(const OptimizerConfig& config, std::int64_t n, std::int64_t step, bool narrow) {
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

  std::vector<std::vector<float>*> kept{&flat.state0, &flat.state1, &flat.average};
  kept.resize(states);
  DeviceCall call{.run = cuda::update, .attributes = update_attributes(config, 1, list, false)};
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

/// What one node updates: `sizes` elements of each flat on this rank.
template <typename Gradient>
class ManyFlats {
 public:
  ManyFlats(const OptimizerConfig& rule, const std::vector<std::int64_t>& sizes, bool narrow,
            Communicator* shards, const std::vector<std::int64_t>& widths) {
    const std::size_t states = states_of(rule).size();
    std::vector<TensorView> gradients, updated;
    std::vector<std::int64_t> segments;
    std::int64_t begin = 0;
    for (const std::int64_t n : sizes) {
      const auto seed = static_cast<std::uint64_t>(1000 + 10 * gradients.size());
      gradients.push_back(add(gradients_, random<Gradient>(n, -1, 1, seed)));
      for (std::size_t i = 0; i <= states; ++i)
        updated.push_back(add(f32_, random<float>(n, i == 0 ? -1 : 0, 1, seed + 1 + i)));
      if (narrow) updated.push_back(add(bf16_, random<bf16>(n, -1, 1, seed + 9)));
      begin = add_segments(segments, begin, begin + n * (shards == nullptr ? 1 : shards->size()),
                           widths);
    }
    call = {.run = cuda::update,
            .attributes = update_attributes(rule, sizes.size(), segments, shards != nullptr),
            .inputs = gradients};
    call.inputs.emplace_back(&factor_, DType::f64, Shape{});
    for (const TensorView& view : updated) {
      call.shared.emplace_back(static_cast<int>(call.outputs.size()),
                               static_cast<int>(call.inputs.size()));
      call.outputs.push_back({view.dtype, view.shape});
      call.inputs.push_back(view);
    }
    call.context.communicator = shards;
    call.context.learning_rate = 0.01;
    call.context.step = 3;
  }

  DeviceCall call;

 private:
  template <typename T>
  static TensorView add(std::list<std::vector<T>>& all, std::vector<T> values) {
    return view_of(all.emplace_back(std::move(values)));
  }

  /// Every third decays; a gap follows each. @return end
  static std::int64_t add_segments(std::vector<std::int64_t>& segments, std::int64_t begin,
                                   std::int64_t end, const std::vector<std::int64_t>& widths) {
    for (std::size_t i = 0; begin < end; ++i) {
      const std::int64_t last = std::min(end, begin + widths[i % widths.size()]);
      segments.insert(segments.end(), {begin, last, i % 3 == 0 ? 1 : 0});
      begin = last + static_cast<std::int64_t>(i % 2);
    }
    return end;
  }

  std::list<std::vector<Gradient>> gradients_;
  std::list<std::vector<float>> f32_;
  std::list<std::vector<bf16>> bf16_;
  double factor_ = 0.75;
};

/// One launch, or as few as hold all, against one for each flat.
template <typename Gradient>
void check_together(const OptimizerConfig& rule, const std::vector<std::int64_t>& sizes,
                    bool narrow, Communicator* shards, const std::vector<std::int64_t>& widths) {
  CAPTURE(sizes.size());
  CAPTURE(narrow);
  const ManyFlats<Gradient> flats(rule, sizes, narrow, shards, widths);
  DeviceCall apart = flats.call;
  apart.run = [](const KernelArguments& k) { update_apart(k, cuda::update); };
  const std::vector<std::byte> expected = run_once(apart);
  CHECK(run_on_device(flats.call) == expected);
  DeviceCall misaligned = flats.call;
  misaligned.misaligned = true;
  CHECK(run_once(misaligned) == expected);
}

}  // namespace

TEST_CASE("kernels: AdamW in one launch equals the CPU's rule, segment by segment") {
  for (const std::int64_t n : {1, 7, 8, 97, 4099})
    for (const std::int64_t step : {1, 9})
      for (const double ema : {0.0, 0.5}) {
        const AdamW rule{0.01, 0.9, 0.99, 1e-6, 0.1, ema};
        check_update<float>(rule, n, step, false);
        check_update<bf16>(rule, n, step, true);
      }
}

TEST_CASE("kernels: SGD with and without momentum equals the CPU's rule") {
  for (const std::int64_t n : {5, 333})
    for (const double momentum : {0.0, 0.9})
      for (const bool nesterov : {false, true}) {
        if (nesterov && momentum == 0) continue;
        const Sgd rule{0.01, momentum, 0.1, nesterov, 0};
        check_update<float>(rule, n, 2, true);
        check_update<f16>(rule, n, 2, false);
      }
}

TEST_CASE("kernels: one update of many flats has the bits of one for each") {
  const std::vector<OptimizerConfig> rules{AdamW{0, 0.9, 0.99, 1e-6, 0.1, 0},
                                           AdamW{0, 0.9, 0.99, 1e-6, 0.1, 0.5},
                                           Sgd{0, 0.9, 0.1, true, 0.5}, Sgd{0, 0, 0.1}};
  std::vector<std::int64_t> few{1030, 0, 5, 2048, 97}, many;
  for (std::int64_t f = 0; f < 61; ++f) many.push_back(1 + f * 29 % 67);
  for (const OptimizerConfig& rule : rules) {
    check_together<float>(rule, few, false, nullptr, {500, 7, 90});
    check_together<bf16>(rule, few, true, nullptr, {500, 7, 90});
  }
  check_together<bf16>(rules[1], many, true, nullptr, {11, 30});       // more than one table's
  check_together<float>(rules[2], {700, 900}, true, nullptr, {3, 2});  // runs too
}

TEST_CASE("kernels: so it has where each rank updates its shard of every flat") {
  launch_threads(3, [](Communicator& world) {
    const std::vector<std::int64_t> sizes{1030, 64, 5, 2048};
    check_together<bf16>(AdamW{0, 0.9, 0.99, 1e-6, 0.1, 0.5}, sizes, true, &world, {900, 70});
    check_together<float>(Sgd{0, 0.9, 0.1}, sizes, false, &world, {400, 7});
  });
}

TEST_CASE("kernels: the CPU's row updates many flats as it updates each") {
  const OptimizerConfig rule = AdamW{0, 0.9, 0.99, 1e-6, 0.1, 0.5};
  Tracer tracer;
  const Value any = tracer.state("any", DType::f32, {8}, Category::optimizer_state);
  const UpdateOperands operands{any, any, {any, any, any}, {}};
  update(tracer, rule, {&operands, 1}, {}, {0, 8, 1}, false);
  const Node& node = tracer.graph().nodes.back();
  const auto plan = node.op->prepare({{}, {}, node.attributes}, {});
  launch_threads(2, [&](Communicator& world) {
    ThreadPool pool(1);
    const auto updated = [&](Communicator* shards, bool together) {
      const ManyFlats<bf16> flats(rule, {1030, 64, 5}, true, shards, {40, 7});
      RunContext context = flats.call.context;
      context.pool = &pool;
      const std::size_t first = flats.call.inputs.size() - flats.call.outputs.size();
      const std::span<const TensorView> inputs = flats.call.inputs;
      const KernelArguments k{.context = context,
                              .attributes = flats.call.attributes,
                              .inputs = inputs,
                              .outputs = inputs.subspan(first),
                              .plan = plan.get()};
      together ? node.op->run(k) : update_apart(k, node.op->run);
      std::vector<std::byte> bytes;
      for (const TensorView& view : k.outputs)
        bytes.insert(bytes.end(), view.data, view.data + view.bytes());
      return bytes;
    };
    for (Communicator* const shards : {static_cast<Communicator*>(nullptr), &world})
      CHECK(updated(shards, true) == updated(shards, false));
    CHECK((updated(&world, true) == updated(nullptr, true)) == (world.rank() == 0));
  });
}

TEST_CASE("kernels: an update of more segments than one launch holds") {
  constexpr std::int64_t kSegments = 301, kWidth = 3;
  auto gradient = random<float>(kSegments * kWidth, -1, 1, 1);
  auto master = random<float>(kSegments * kWidth, -1, 1, 2);
  std::vector<std::int64_t> list;
  for (std::int64_t s = 0; s < kSegments; ++s)
    list.insert(list.end(), {s * kWidth, (s + 1) * kWidth, s % 2});
  DeviceCall call{.run = cuda::update,
                  .attributes = update_attributes(Sgd{0, 0, 0.5}, 1, list, false)};
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
  DeviceCall call{.run = cuda::update,
                  .attributes = update_attributes(Sgd{0, 0, 0.5}, 1,
                                                  {0, kPlain, 0, kPlain, kElements, 1}, false)};
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
