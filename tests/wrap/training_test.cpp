// The sharded optimizer over many steps: what it remembers, skips, averages, holds and sends.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "ashlar/checkpoint.hpp"
#include "ashlar/error.hpp"
#include "support/temporary_folder.hpp"
#include "train/decorators.hpp"
#include "wrap/toy_model.hpp"

namespace ashlar::test {
namespace {

const std::vector<std::size_t> kBackward{6, 5, 4, 3, 2, 1, 0};

void train_step(ToyModel& model, int step, Communicator& world) {
  model.zero_grad();
  model.backward(step * world.size() + world.rank(), kBackward);
  model.optimizer().step();
}

}  // namespace

TEST_CASE("sharded optimizer: a checkpoint continues with the same bits, at any stage") {
  const TemporaryFolder folder;
  for (const DType dtype : {DType::f32, DType::bf16}) {
    std::vector<std::uint32_t> straight;
    launch_threads(2, [&](Communicator& world) {
      ToyModel model(world, Memory::callers, dtype, AdamW{.lr = 0.05, .ema = 0.9}, {.stage = 1});
      for (int step = 0; step < 3; ++step) train_step(model, step, world);
      model.optimizer().save(folder.path / "saved", R"({"epoch": 4})");
      for (int step = 3; step < 5; ++step) train_step(model, step, world);
      const auto bits = bits_of(model.parameters());
      if (world.rank() == 0) straight = bits;
    });
    for (int stage = 0; stage <= 3; ++stage) {
      const Memory memory = stage == 3 ? Memory::optimizers : Memory::callers;
      launch_threads(2, [&](Communicator& world) {
        ToyModel model(world, memory, dtype, AdamW{.lr = 0.05, .ema = 0.9}, {.stage = stage});
        const std::string counters = model.optimizer().load(folder.path / "saved");
        CHECK(counters.find("\"epoch\":4") != std::string::npos);
        CHECK(model.optimizer().steps() == 3);
        for (int step = 3; step < 5; ++step) train_step(model, step, world);
        CHECK(bits_of(model.parameters()) == straight);
      });
    }
    launch_threads(3, [&](Communicator& world) {  // another world reads it too
      ToyModel model(world, Memory::optimizers, dtype, AdamW{.ema = 0.9}, {.stage = 2});
      model.optimizer().load(folder.path / "saved");
      CHECK(model.optimizer().steps() == 3);
    });
  }
}

TEST_CASE("sharded optimizer: a checkpoint of another model names what is missing") {
  const TemporaryFolder folder;
  const auto self = self_communicator();
  std::vector<float> memory(4), gradients(4);
  ParameterList list;
  list.add("other", memory.data(), gradients.data(), {4}, DType::f32);
  const ShardedOptimizer other(list, *self, AdamW{});
  other.save(folder.path / "saved");
  ToyModel model(*self, Memory::callers, DType::f32, AdamW{}, {});
  std::string message;
  try {
    model.optimizer().load(folder.path / "saved");
  } catch (const InvalidArgument& error) {
    message = error.what();
  }
  CAPTURE(message);
  CHECK(message.find("'embedding'") != std::string::npos);
  CHECK(message.find("'other'") != std::string::npos);
}

TEST_CASE("sharded optimizer: an overflow halves the loss scale and changes nothing else") {
  for (const int stage : {0, 1, 2, 3}) {
    launch_threads(2, [&](Communicator& world) {
      const Memory memory = stage == 3 ? Memory::optimizers : Memory::callers;
      ToyModel model(world, memory, DType::f16, AdamW{.lr = 0.05},
                     {.stage = stage, .loss_scale = LossScale{1024, 2}});
      ShardedOptimizer& optimizer = model.optimizer();
      const auto before = bits_of(model.parameters());
      model.zero_grad();
      std::vector<f16> bad(33, f16(world.rank() == 1 ? 70000.0F : 0.0F));  // infinite
      {
        const auto lease = optimizer.gather("third");
        optimizer.grad_ready("head", {bad.data(), DType::f16, {33}});
      }
      const UpdateResult skipped = optimizer.step();
      CHECK_FALSE(skipped.applied);
      CHECK(optimizer.loss_scale() == 512);
      CHECK(optimizer.steps() == 0);
      CHECK(bits_of(model.parameters()) == before);
      for (int step = 0; step < 2; ++step) train_step(model, step, world);
      CHECK(optimizer.steps() == 2);
      CHECK(optimizer.loss_scale() == 1024);
      CHECK(bits_of(model.parameters()) != before);
    });
  }
}

TEST_CASE("sharded optimizer: the loss scale is taken out again") {
  std::array<std::vector<std::uint32_t>, 2> bits;
  for (const bool scaled : {false, true}) {
    launch_threads(2, [&](Communicator& world) {
      std::vector<float> values(9, 1), gradients(9);
      ParameterList list;
      list.add("w", values.data(), gradients.data(), {9}, DType::f32);
      ShardedOptions options;
      options.clip = 0.5;
      if (scaled) options.loss_scale = LossScale{4096, 1000};
      ShardedOptimizer optimizer(list, world, Sgd{.lr = 0.5}, options);
      const auto scale = static_cast<float>(optimizer.loss_scale());
      for (std::size_t i = 0; i < 9; ++i) gradients[i] = scale * static_cast<float>(i);
      CHECK(optimizer.step().grad_norm == doctest::Approx(std::sqrt(204.0)));
      if (world.rank() == 0) bits[scaled ? 1 : 0] = bits_of(values);
    });
  }
  CHECK(bits[0] == bits[1]);
}

TEST_CASE("sharded optimizer: shards within groups, replicas across, as one group of all") {
  std::vector<std::vector<float>> results;
  for (const bool grouped : {false, true}) {
    for (const int stage : {1, 3}) {
      launch_threads(4, [&](Communicator& world) {
        const auto shards = world.split(world.rank() / 2, world.rank());
        const auto replicas = world.split(world.rank() % 2, world.rank());
        ToyModel model(grouped ? *shards : world, Memory::optimizers, DType::f32, AdamW{.lr = 0.05},
                       {.stage = stage, .clip = 1, .replicas = grouped ? replicas.get() : nullptr});
        for (int step = 0; step < 3; ++step) {
          model.zero_grad();
          model.backward(step * 4 + world.rank(), kBackward);
          model.optimizer().step();
        }
        const std::vector<float> all = model.parameters();
        if (world.rank() == 3) results.push_back(all);
      });
    }
  }
  REQUIRE(results.size() == 4);
  for (const std::vector<float>& other : results) {
    for (std::size_t i = 0; i < other.size(); ++i)
      CHECK(other[i] == doctest::Approx(results[0][i]).epsilon(1e-5));
  }
}

TEST_CASE("sharded optimizer: the average follows the weights from the first ones on") {
  const auto self = self_communicator();
  ToyModel model(*self, Memory::optimizers, DType::f32, Sgd{.lr = 0.1, .ema = 0.75}, {.stage = 3});
  const auto trainable = [&] {
    std::vector<double> values;
    const std::vector<float> all = model.parameters();
    std::size_t at = 0;
    for (const ToyParameter& parameter : toy_parameters()) {
      for (std::int64_t i = 0; i < parameter.elements; ++i, ++at)
        if (parameter.trainable) values.push_back(all[at]);
    }
    return values;
  };
  std::vector<double> expected = trainable();
  for (int step = 0; step < 5; ++step) {
    train_step(model, step, *self);
    const std::vector<double> now = trainable();
    for (std::size_t i = 0; i < now.size(); ++i) expected[i] = 0.75 * expected[i] + 0.25 * now[i];
  }
  const std::vector<float> average = model.parameters(true);
  REQUIRE(average.size() == expected.size());
  for (std::size_t i = 0; i < expected.size(); ++i)
    CHECK(std::abs(average[i] - expected[i]) < 1e-6);
}

TEST_CASE("sharded optimizer: model state and traffic are what ZeRO says") {
  for (const int ranks : {1, 2, 3, 4}) {
    for (int stage = 0; stage <= 3; ++stage) {
      launch_threads(ranks, [&](Communicator& world) {
        ToyModel model(world, Memory::optimizers, DType::f32, AdamW{}, {.stage = stage});
        ShardedOptimizer& optimizer = model.optimizer();
        const FlatLayout& layout = optimizer.layout();
        const std::int64_t all = layout.padded(), moving = layout.padded(true);
        const std::int64_t n = ranks;
        const auto bytes = optimizer.state_bytes();
        const auto of = [&](Category c) { return bytes[static_cast<std::size_t>(c)]; };
        CHECK(of(Category::parameter) == 4 * (stage == 3 ? all / n : all));
        CHECK(of(Category::gradient) == 4 * (stage >= 2 ? moving / n : moving));
        CHECK(of(Category::optimizer_state) == 8 * (stage >= 1 ? moving / n : moving));
        train_step(model, 0, world);
        const SentBytes before = optimizer.sent_bytes();
        train_step(model, 1, world);
        const SentBytes after = optimizer.sent_bytes();
        const auto sent = [&](Traffic kind) {
          return after[static_cast<std::size_t>(kind)] - before[static_cast<std::size_t>(kind)];
        };
        const std::int64_t share = 4 * moving / n * (n - 1), whole = 4 * all / n * (n - 1);
        const std::int64_t norms = 8 * (static_cast<std::int64_t>(layout.flats().size()) + 1);
        CHECK(sent(Traffic::reduce_scatter) == share);
        const std::int64_t order = stage == 3 ? 8 : 0;  // of gathers, its hash
        CHECK(sent(Traffic::all_gather) - (norms + order) * (n - 1) ==
              (stage == 3 ? whole : share));
      });
    }
  }
}

TEST_CASE("sharded optimizer: gradients that stay whole are counted, and at stage 2 spoken of") {
  for (const Memory memory : {Memory::callers, Memory::gradients_elsewhere}) {
    for (int stage = 0; stage <= 2; ++stage) {
      CAPTURE(stage);
      const bool own = memory == Memory::callers;
      launch_threads(2, [&](Communicator& world) {
        ToyModel model(world, memory, DType::f32, AdamW{}, {.stage = stage});
        const ShardedOptimizer& optimizer = model.optimizer();
        const std::int64_t whole = optimizer.layout().elements(true),
                           padded = optimizer.layout().padded(true);
        const std::int64_t sums = own ? 0 : stage == 0 ? padded : padded / 2;
        const std::int64_t theirs = own || stage < 2 ? whole : 0;
        CHECK(optimizer.state_bytes()[static_cast<std::size_t>(Category::gradient)] ==
              4 * (sums + theirs));
        const bool says = optimizer.summary().find("gradients stay whole") != std::string::npos;
        CHECK(says == (own && stage == 2));
      });
    }
  }
}

TEST_CASE("sharded optimizer: transients take no memory upstream after the second step") {
  for (int stage = 0; stage <= 3; ++stage) {
    launch_threads(2, [&](Communicator& threads) {
      StatisticsAdaptor window(host_memory()), own(host_memory());
      WithWindow world(threads, window);
      ToyModel model(world, stage == 3 ? Memory::optimizers : Memory::callers, DType::f32, AdamW{},
                     {.stage = stage, .bucket_bytes = 600, .overlap = false, .memory = &own});
      for (int step = 0; step < 2; ++step) train_step(model, step, world);
      const auto calls = window.allocations() + own.allocations();
      for (int step = 2; step < 6; ++step) train_step(model, step, world);
      CHECK(window.allocations() + own.allocations() == calls);
      CHECK(model.optimizer().transient_bytes() > 0);
    });
  }
}

TEST_CASE("sharded optimizer: two of them on one communicator, and evaluation between steps") {
  std::vector<std::uint32_t> alone, together;
  for (const bool both : {false, true}) {
    launch_threads(2, [&](Communicator& world) {
      ToyModel model(world, Memory::optimizers, DType::f32, AdamW{.lr = 0.05}, {.stage = 3});
      ToyModel other(world, Memory::callers, DType::bf16, Sgd{.lr = 0.01}, {.stage = 1});
      for (int step = 0; step < 4; ++step) {
        train_step(model, step, world);
        if (!both) continue;
        train_step(other, step, world);
        for (const char* unit : {"first", "second", "third"}) {
          const auto lease = model.optimizer().gather(unit);
          CHECK(lease.unit() == unit);
        }
      }
      const auto bits = bits_of(model.parameters());
      if (world.rank() == 0) (both ? together : alone) = bits;
    });
  }
  CHECK(alone == together);
}

TEST_CASE("sharded optimizer: the rate is set, or follows a schedule") {
  const auto self = self_communicator();
  std::vector<float> values(3, 1), gradients(3, 1);
  ParameterList list;
  list.add("w", values.data(), gradients.data(), {3}, DType::f32);
  ShardedOptimizer plain(list, *self, Sgd{.lr = 0.5, .momentum = 0});
  CHECK(plain.step().learning_rate == 0.5);
  plain.set_lr(0.25);
  CHECK(plain.step().learning_rate == 0.25);
  CHECK(values[0] == 0.25F);
  ShardedOptimizer scheduled(list, *self, Sgd{}, {.schedule = Schedule{.lr = 1, .warmup = 4}});
  CHECK(scheduled.step().learning_rate == 0.25);
  CHECK(scheduled.lr() == 0.5);
}

}  // namespace ashlar::test
