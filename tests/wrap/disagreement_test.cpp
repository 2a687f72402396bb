// Ranks that do not do the same: what they are all told, and that it is soon.
#include <doctest/doctest.h>

#include <array>
#include <chrono>
#include <functional>

#include "support/process.hpp"
#include "wrap/messages.hpp"
#include "wrap/toy_model.hpp"

namespace ashlar::test {
namespace {

/// Shorter than what a collective waits by default: none of these comes to that.
void wait_less(Communicator& world) {
  world.set_timeout(std::chrono::milliseconds(20000 * kPatience));
}

}  // namespace

TEST_CASE("sharded optimizer: ranks whose rules or settings differ say which") {
  struct Case {
    std::function<void(OptimizerConfig&, ShardedOptions&)> change;
    std::string part;
  };
  const std::vector<Case> cases{
      {[](auto& rule, auto&) { rule = Sgd{.lr = 3e-4, .weight_decay = 0.01}; }, "Sgd: rate 0.0003"},
      {[](auto& rule, auto&) { rule = AdamW{.beta1 = 0.5}; }, "betas 0.5 and 0.999"},
      {[](auto& rule, auto&) { rule = AdamW{.epsilon = 1e-4}; }, "epsilon 0.0001"},
      {[](auto&, auto& options) { options.schedule = Schedule{.lr = 2}; }, "no schedule"},
      {[](auto&, auto& options) { options.loss_scale = LossScale{}; }, "no loss scale"},
      {[](auto&, auto& options) { options.sync = false; }, "values of each rank"},
      {[](auto&, auto& options) { options.clip = 3; }, "clip 3"},
  };
  for (const Case& c : cases) {
    const auto all = messages(2, [&](Communicator& world) {
      wait_less(world);
      OptimizerConfig rule = AdamW{};
      ShardedOptions options;
      if (world.rank() == 1) c.change(rule, options);
      const ToyModel model(world, Memory::callers, DType::f32, rule, options);
    });
    for (const std::string& message : all) {
      CAPTURE(message);
      CHECK(contains(message, "ranks disagree on registered parameters"));
      CHECK(contains(message, c.part));
      CHECK(message == all[0]);
    }
  }
}

TEST_CASE("sharded optimizer: ranks that gather different units say which") {
  const auto all = messages(2, [](Communicator& world) {
    ToyModel model(world, Memory::optimizers, DType::f32, AdamW{}, {.stage = 3});
    const auto lease = model.optimizer().gather(world.rank() == 0 ? "first" : "third");
  });
  for (const std::string& message : all) {
    CAPTURE(message);
    CHECK(contains(message, "all_gather first"));
    CHECK(contains(message, "all_gather third"));
  }
}

TEST_CASE("sharded optimizer: another order of gathers names a unit, at the step at the latest") {
  using Order = std::array<const char*, 3>;
  for (const int odd_step : {0, 1, 2}) {
    for (const Order& other : {Order{"first", "third", "second"}, Order{"second", "first", "third"},
                               Order{"first", "second", "second"}}) {
      CAPTURE(odd_step);
      CAPTURE(other[1]);
      const auto all = messages(3, [&](Communicator& world) {
        wait_less(world);
        ToyModel model(world, Memory::optimizers, DType::f32, AdamW{}, {.stage = 3});
        ShardedOptimizer& optimizer = model.optimizer();
        for (int step = 0; step < 4; ++step) {
          const bool odd = step == odd_step && world.rank() == 2;
          for (const char* unit : odd ? other : Order{"first", "second", "third"}) {
            const auto lease = optimizer.gather(unit);
          }
          static_cast<void>(optimizer.gradient("head"));
          optimizer.step();
        }
      });
      for (const std::string& message : all) {
        CAPTURE(message);
        CHECK((contains(message, "ranks disagree on the order of gathers") ||
               contains(message, "ranks diverged") || contains(message, "failed before")));
        CHECK((contains(message, "first") || contains(message, "second") ||
               contains(message, "third")));
      }
    }
  }
}

TEST_CASE("sharded optimizer: what one rank is refused for, the others are told") {
  for (const int stage : {1, 2, 3}) {
    for (const bool overlap : {true, false}) {
      CAPTURE(stage);
      CAPTURE(overlap);
      const std::string text = "the gradient of parameter 'head' was reported twice in one step";
      std::array<std::string, 3> all;
      const auto run = [&] {
        launch_threads(3, [&](Communicator& world) {
          wait_less(world);
          try {
            ToyModel model(world, Memory::optimizers, DType::f32, AdamW{},
                           {.stage = stage, .overlap = overlap});
            static_cast<void>(model.optimizer().gradient("head"));
            model.optimizer().grad_ready("head");
            if (world.rank() == 1) model.optimizer().grad_ready("head");
            model.optimizer().step();
          } catch (const Error& error) {
            all[static_cast<std::size_t>(world.rank())] = error.what();
            throw;
          }
        });
      };
      CHECK_THROWS_WITH_AS(run(), text.c_str(), InvalidArgument);
      for (const std::string& message : all) {
        CAPTURE(message);
        CHECK(contains(message, text));
      }
    }
  }
}

TEST_CASE("sharded optimizer: groups of shards that differ name the parameter, on every rank") {
  for (const bool registration : {true, false}) {
    CAPTURE(registration);
    const auto all = messages(4, [&](Communicator& world) {
      wait_less(world);
      const bool odd = world.rank() / 2 == 1;
      const auto shards = world.split(world.rank() / 2, world.rank());
      const auto replicas = world.split(world.rank() % 2, world.rank());
      std::array<float, 6> weight{}, gradient{};
      if (odd && !registration) weight[3] = 1;
      ParameterList list;
      list.add("weight", weight.data(), gradient.data(), {odd && registration ? 5 : 6}, DType::f32);
      const ShardedOptimizer optimizer(list, *shards, AdamW{},
                                       {.sync = false, .replicas = replicas.get()});
    });
    for (const std::string& message : all) {
      CAPTURE(message);
      CHECK(contains(message, "ranks disagree on"));
      CHECK(contains(message, "parameter 'weight'"));
    }
  }
}

TEST_CASE("sharded optimizer: a save that fails in the group that writes fails in all") {
  const auto all = messages(4, [&](Communicator& world) {
    wait_less(world);
    const auto shards = world.split(world.rank() / 2, world.rank());
    const auto replicas = world.split(world.rank() % 2, world.rank());
    std::array<float, 6> weight{}, gradient{};
    ParameterList list;
    list.add("weight", weight.data(), gradient.data(), {6}, DType::f32);
    const ShardedOptimizer optimizer(list, *shards, AdamW{}, {.replicas = replicas.get()});
    optimizer.save("/dev/null/checkpoint");
  });
  for (const std::string& message : all) {
    CAPTURE(message);
    CHECK(contains(message, "/dev/null"));
  }
}

}  // namespace ashlar::test
