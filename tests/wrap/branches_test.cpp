// Ranks whose branches differ: a gradient that a rank leaves out holds up nobody, whatever else the
// program sends meanwhile.
#include <doctest/doctest.h>

#include <chrono>
#include <cmath>

#include "support/process.hpp"
#include "wrap/toy_model.hpp"

namespace ashlar::test {
namespace {

constexpr int kUnits = 7, kElements = 40;

std::string unit_name(int u) { return "u" + std::to_string(u); }

/// A chain of units, one parameter each. Rank 1's branch leaves out unit `unused`; between units
/// the program sums a number of its own when it is `chatty`. @return all values after some steps
std::vector<float> train(int ranks, int stage, int unused, bool chatty, int replicas = 1) {
  std::vector<float> result;
  launch_threads(ranks, [&](Communicator& world) {
    world.set_timeout(std::chrono::milliseconds(20000 * kPatience));
    const auto shards = world.split(world.rank() / (ranks / replicas), world.rank());
    const auto across = world.split(world.rank() % (ranks / replicas), world.rank());
    ParameterList list;
    for (int u = 0; u < kUnits; ++u) {
      list.allocate(unit_name(u), {kElements}, DType::f32,
                    {.unit = unit_name(u), .initial = {Initializer::Kind::normal, 1}});
    }
    ShardedOptimizer optimizer(
        list, *shards, AdamW{.lr = 0.05},
        {.stage = stage, .bucket_bytes = 1, .replicas = replicas > 1 ? across.get() : nullptr});
    for (int step = 0; step < 3; ++step) {
      optimizer.zero_grad();
      for (int u = 0; u < kUnits; ++u) const auto lease = optimizer.gather(unit_name(u));
      for (int u = kUnits - 1; u >= 0; --u) {
        const auto lease = optimizer.gather(unit_name(u));
        float one = 1;
        if (chatty) world.all_reduce({&one, DType::f32, {1}}, "the program's own").wait();
        if (world.rank() == 1 && u == unused) continue;
        for (float& g : optimizer.gradient(unit_name(u)).span<float>())
          g += static_cast<float>(u + step + world.rank() + 1);
        optimizer.grad_ready(unit_name(u));
      }
      optimizer.step();
    }
    for (int u = 0; u < kUnits; ++u) {
      std::vector<float> values(kElements);
      optimizer.read(unit_name(u), {values.data(), DType::f32, {kElements}});
      if (world.rank() == 0) result.insert(result.end(), values.begin(), values.end());
    }
  });
  return result;
}

}  // namespace

TEST_CASE("sharded optimizer: a rank that leaves any unit's gradient out holds up nobody") {
  for (int unused = 0; unused < kUnits; ++unused) {
    CAPTURE(unused);
    const std::vector<float> expected = train(2, 0, unused, false);
    for (const int stage : {0, 1, 2, 3}) {
      CAPTURE(stage);
      CHECK(bits_of(train(2, stage, unused, false)) == bits_of(expected));
      CHECK(bits_of(train(2, stage, unused, true)) == bits_of(expected));
    }
  }
}

TEST_CASE("sharded optimizer: nor where shards are replicated") {
  for (const int unused : {1, 4, kUnits - 1}) {
    CAPTURE(unused);
    const std::vector<float> expected = train(4, 0, unused, false);
    for (const int stage : {1, 2, 3}) {
      CAPTURE(stage);
      const std::vector<float> replicated = train(4, stage, unused, true, 2);
      REQUIRE(replicated.size() == expected.size());
      for (std::size_t i = 0; i < expected.size(); ++i)
        CHECK(std::abs(replicated[i] - expected[i]) < 1e-5);
    }
  }
}

TEST_CASE("sharded optimizer: two optimizers whose gradients come in other orders on each rank") {
  launch_threads(2, [](Communicator& world) {
    world.set_timeout(std::chrono::milliseconds(20000 * kPatience));
    ToyModel a(world, Memory::callers, DType::f32, AdamW{}, {.stage = 1, .bucket_bytes = 1});
    ToyModel b(world, Memory::callers, DType::f32, Sgd{}, {.stage = 2, .bucket_bytes = 1});
    for (int step = 0; step < 2; ++step) {
      ToyModel& first = world.rank() == 0 ? a : b;
      ToyModel& second = world.rank() == 0 ? b : a;
      for (ToyModel* model : {&first, &second}) {
        model->zero_grad();
        model->backward(step, {6, 4, 2, 1, 0});
      }
      CHECK(a.optimizer().step().applied);
      CHECK(b.optimizer().step().applied);
    }
  });
}

TEST_CASE("sharded optimizer: a gradient in one group of shards alone is a step for all") {
  launch_threads(2, [](Communicator& world) {
    const auto shards = world.split(world.rank(), 0);
    ToyModel model(*shards, Memory::optimizers, DType::f32, AdamW{},
                   {.stage = 2, .replicas = &world});
    if (world.rank() == 1) model.backward(0, {0});
    CHECK(model.optimizer().step().applied);
    CHECK(model.optimizer().grad_norm() > 0);
  });
}

}  // namespace ashlar::test
