// What travels beside the model's own work: bytes cross ranks while nobody is inside a call.
#include <doctest/doctest.h>

#include <array>
#include <chrono>
#include <numeric>
#include <thread>

#include "support/process.hpp"
#include "wrap/toy_model.hpp"

namespace ashlar::test {
namespace {

std::int64_t bytes_of(const ShardedOptimizer& optimizer) {
  const SentBytes sent = optimizer.sent_bytes();
  return std::accumulate(sent.begin(), sent.end(), std::int64_t{0});
}

/// The model computes: whether so many bytes have been sent before `most` is over.
bool sent_while_computing(const ShardedOptimizer& optimizer, std::int64_t bytes,
                          std::chrono::milliseconds most) {
  const auto end = std::chrono::steady_clock::now() + most;
  while (bytes_of(optimizer) < bytes) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::yield();
  }
  return true;
}

constexpr std::chrono::milliseconds kLong(5000 * kPatience), kShort(50);

}  // namespace

TEST_CASE("sharded optimizer: the next unit is gathered while the model works on this one") {
  for (const bool overlap : {true, false}) {
    CAPTURE(overlap);
    launch_threads(2, [&](Communicator& world) {
      ToyModel model(world, Memory::optimizers, DType::f32, AdamW{},
                     {.stage = 3, .prefetch = 1, .overlap = overlap});
      ShardedOptimizer& optimizer = model.optimizer();
      std::vector<std::int64_t> sent_by;  // bytes after each unit of the first step
      for (int step = 0; step < 3; ++step) {
        world.barrier();
        const std::int64_t start = bytes_of(optimizer);
        world.barrier();
        for (const std::size_t u : {0UL, 1UL, 2UL}) {
          const auto lease = optimizer.gather(std::array{"first", "second", "third"}[u]);
          if (step == 0) {
            sent_by.push_back(bytes_of(optimizer) - start);
          } else if (u < 2) {
            const std::int64_t with_next = start + sent_by[u + 1];
            CHECK(sent_while_computing(optimizer, with_next, overlap ? kLong : kShort) == overlap);
          }
        }
        model.backward(step * 2 + world.rank(), {6, 4, 2, 1, 0});
        optimizer.step();
      }
    });
  }
}

TEST_CASE("sharded optimizer: a reported gradient travels while backward goes on") {
  for (const bool overlap : {true, false}) {
    for (const int stage : {1, 2, 3}) {
      CAPTURE(overlap);
      CAPTURE(stage);
      launch_threads(2, [&](Communicator& world) {
        ToyModel model(world, Memory::optimizers, DType::f32, AdamW{},
                       {.stage = stage, .bucket_bytes = 1, .prefetch = 0, .overlap = overlap});
        ShardedOptimizer& optimizer = model.optimizer();
        const auto lease = optimizer.gather("third");
        world.barrier();
        const std::int64_t before = bytes_of(optimizer);
        world.barrier();
        optimizer.gradient("head").span<float>()[0] = 1;
        optimizer.grad_ready("head");
        CHECK(sent_while_computing(optimizer, before + 1, overlap ? kLong : kShort) == overlap);
      });
    }
  }
}

TEST_CASE("sharded optimizer: a rank that throws with gradients on their way fails all, at once") {
  for (const int stage : {1, 3}) {
    CAPTURE(stage);
    const auto run = [&] {
      launch_threads(3, [&](Communicator& world) {
        ToyModel model(world, Memory::optimizers, DType::f32, AdamW{},
                       {.stage = stage, .bucket_bytes = 1});
        for (int step = 0;; ++step) {
          model.backward(step, {6, 4, 2, 1, 0});
          if (step == 2 && world.rank() == 1) throw InvalidArgument("an unreadable sample");
          model.optimizer().step();
          model.zero_grad();
        }
      });
    };
    CHECK_THROWS_WITH_AS(run(), "an unreadable sample", InvalidArgument);
  }
}

}  // namespace ashlar::test
