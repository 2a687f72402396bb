// Model-state bytes and bytes sent per rank against the formulas of docs/zero.md.
#include <doctest/doctest.h>

#include <cmath>
#include <numeric>

#include "ashlar/communicator.hpp"
#include "ashlar/train_step.hpp"
#include "train/decorators.hpp"
#include "train/tiny_model.hpp"

namespace ashlar {
namespace {

constexpr std::int64_t kWidth = 4999;

struct Case {
  int ranks, stage;
  std::int64_t k;
  bool each;
  DType dtype, wire;
  bool reshard;
  bool freeze = false;
  MicroBatchOrder order = MicroBatchOrder::micro_batches;
  Recompute recompute = Recompute::automatic;
};

/// @param padded trainable elements
std::int64_t expected_gradient(const Case& c, std::int64_t padded) {
  const std::int64_t g = c.dtype == DType::f32 || c.k > 1 ? 4 : 2;
  const bool layers = c.order == MicroBatchOrder::layers;
  const bool shard = c.stage >= 2 && (c.k == 1 || c.each || layers);
  return g * padded / (shard ? c.ranks : 1);
}

/// Elements that a rank would send were nothing its own, for gathers and reductions.
std::pair<double, double> expected_traffic(const Case& c, const FlatLayout& layout) {
  const bool remade = c.recompute == Recompute::per_unit || c.order == MicroBatchOrder::layers;
  double gathered = 0, reduced = 0;
  for (const Flat& flat : layout.flats()) {
    const std::string& unit = layout.units()[static_cast<std::size_t>(flat.unit)];
    // The first: for forward, for the tied use, and where its inside is made again.
    const double both = unit == "first" && remade ? 3 : 2;
    const double k = c.order == MicroBatchOrder::layers ? 1 : static_cast<double>(c.k);
    const double gathers = c.stage < 3                   ? (flat.trainable ? 1 : 0)
                           : c.reshard && unit != "last" ? both * k
                                                         : k;
    gathered += gathers * static_cast<double>(flat.padded);
    if (flat.trainable) reduced += (c.each ? k : 1) * static_cast<double>(flat.padded);
  }
  return {gathered, reduced};
}

/// A step's first allocation of each resource is its states, the second its transients.
void check_allocations(const TrainStep& train, const SizesAdaptor& own,
                       const SizesAdaptor& shared) {
  REQUIRE(own.sizes().size() == 2);
  REQUIRE(shared.sizes().size() == 2);
  const std::int64_t states = own.sizes()[0] + shared.sizes()[0];
  CHECK(states + own.sizes()[1] + shared.sizes()[1] == train.allocated_bytes());
  const auto bytes = train.state_bytes();
  const std::int64_t named = std::accumulate(bytes.begin(), bytes.end(), std::int64_t{0});
  CHECK(states >= named);
  CHECK(states < named + 2 * kAlignment);  // flats fill whole lines, a few scalars do not
}

void check(const Case& c) {
  launch_threads(c.ranks, [&](Communicator& threads) {
    SizesAdaptor own(host_memory()), shared(host_memory());
    WithWindow world(threads, shared);
    TrainConfig config;
    config.memory = &own;
    config.zero.stage = c.stage;
    config.zero.reshard_after_forward = c.reshard;
    config.micro_batches = c.k;
    config.order = c.order;
    config.recompute = c.recompute;
    config.reduce = c.each ? ReduceWhen::each : ReduceWhen::last;
    config.precision = {c.dtype, c.wire};
    config.samples = kBatch;
    TrainStep train(
        world, [&](Tracer& t) { return tiny_model(t, kWidth, c.dtype, c.freeze); }, config);
    const SentBytes before = world.sent_bytes();
    const auto result = train.step([](std::int64_t, const Batch& batch) {
      for (float& x : batch.at("x").span<float>()) x = 0.5F;
    });
    CHECK(std::isfinite(result.loss));
    SentBytes sent = world.sent_bytes();
    for (std::size_t i = 0; i < sent.size(); ++i) sent[i] -= before[i];
    if (world.rank() != 0) return;

    CAPTURE(c.ranks);
    CAPTURE(c.stage);
    CAPTURE(c.k);
    CAPTURE(c.each);
    CAPTURE(c.freeze);
    const std::int64_t padded = train.layout().padded(), trainable = train.layout().padded(true);
    CHECK((trainable < padded) == c.freeze);
    const std::int64_t p = size_of(c.dtype), s = c.dtype == DType::f32 ? 8 : 12;
    check_allocations(train, own, shared);
    const auto bytes = train.state_bytes();
    CHECK(bytes[static_cast<std::size_t>(Category::parameter)] ==
          p * padded / (c.stage == 3 ? c.ranks : 1));
    CHECK(bytes[static_cast<std::size_t>(Category::gradient)] == expected_gradient(c, trainable));
    CHECK(bytes[static_cast<std::size_t>(Category::optimizer_state)] ==
          s * trainable / (c.stage >= 1 ? c.ranks : 1));
    const auto [gathered, reduced] = expected_traffic(c, train.layout());
    const double share = static_cast<double>(c.ranks - 1) / c.ranks;
    const auto measured = [&](Traffic kind) {
      return static_cast<double>(sent[static_cast<std::size_t>(kind)]);
    };
    CHECK(measured(Traffic::all_gather) ==
          doctest::Approx(share * gathered * static_cast<double>(p)).epsilon(0.01));
    CHECK(measured(Traffic::reduce_scatter) ==
          doctest::Approx(share * reduced * static_cast<double>(size_of(c.wire))).epsilon(0.01));
    CHECK(measured(Traffic::broadcast) == 0);
    CHECK(measured(Traffic::all_reduce) <= 64);
  });
}

}  // namespace

TEST_CASE(
    "bytes: model state and traffic are the formulas', worlds 1 to 8, every stage, K, reduction, "
    "frozen or not") {
  for (int ranks = 1; ranks <= 8; ++ranks) {
    for (int stage = 0; stage <= 3; ++stage) {
      for (const bool freeze : {false, true}) {
        check({ranks, stage, 1, true, DType::f32, DType::f32, true, freeze});
        check({ranks, stage, 1, true, DType::bf16, DType::bf16, true, freeze});
        check({ranks, stage, 3, true, DType::f32, DType::f32, true, freeze});
        check({ranks, stage, 3, false, DType::bf16, DType::bf16, true, freeze});
        check({ranks, stage, 2, true, DType::f32, DType::f32, true, freeze,
               MicroBatchOrder::micro_batches, Recompute::per_unit});
        check({ranks, stage, 2, true, DType::bf16, DType::f32, false, freeze});
        check({ranks, stage, 2, false, DType::f32, DType::f32, false, freeze});
        check({ranks, stage, 3, false, DType::bf16, DType::bf16, true, freeze,
               MicroBatchOrder::layers});
        check({ranks, stage, 2, false, DType::f32, DType::f32, false, freeze,
               MicroBatchOrder::layers});
      }
    }
  }
}

}  // namespace ashlar
