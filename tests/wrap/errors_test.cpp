// The sharded optimizer: what a caller may get wrong, and what every rank is told.
#include <doctest/doctest.h>

#include <array>
#include <mutex>

#include "ashlar/error.hpp"
#include "support/temporary_folder.hpp"
#include "wrap/toy_model.hpp"

namespace ashlar::test {
namespace {

/// What each rank's exception says when all run `body`; empty for none.
std::vector<std::string> messages(int ranks, const std::function<void(Communicator&)>& body) {
  std::vector<std::string> all(static_cast<std::size_t>(ranks));
  launch_threads(ranks, [&](Communicator& world) {
    try {
      body(world);
    } catch (const Error& error) {
      all[static_cast<std::size_t>(world.rank())] = error.what();
    }
  });
  return all;
}

bool contains(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

struct Arrays {
  std::array<float, 6> weight{}, weight_gradient{}, bias{}, bias_gradient{};
  ParameterList list(std::int64_t rows = 2) {
    ParameterList list;
    list.add("weight", weight.data(), weight_gradient.data(), {rows, 3}, DType::f32);
    list.add("bias", bias.data(), bias_gradient.data(), {3}, DType::f32);
    return list;
  }
};

}  // namespace

TEST_CASE("sharded optimizer: registrations that cannot be are refused by name") {
  Arrays a;
  ParameterList list;
  list.add("weight", a.weight.data(), a.weight_gradient.data(), {2, 3}, DType::f32);
  const auto add = [&](const char* name, void* values, void* gradients, DType dtype) {
    list.add(name, values, gradients, {3}, dtype);
  };
  CHECK_THROWS_WITH_AS(add("weight", a.bias.data(), nullptr, DType::f32),
                       "parameter 'weight' is registered twice", InvalidArgument);
  CHECK_THROWS_WITH_AS(add("bias", nullptr, nullptr, DType::f32),
                       "the values of parameter 'bias' are a null pointer", InvalidArgument);
  CHECK_THROWS_WITH_AS(add("tied", a.weight.data() + 3, nullptr, DType::f32),
                       "parameters 'weight' and 'tied' share memory; register tied weights once",
                       InvalidArgument);
  CHECK_THROWS_WITH_AS(add("bias", a.bias.data(), nullptr, DType::i32),
                       "parameter 'bias' is i32; parameters are f32, bf16 or f16", InvalidArgument);
  CHECK_THROWS_AS(list.add("", {a.bias.data(), DType::f32, {3}}, {}), InvalidArgument);
  CHECK_THROWS_WITH_AS(
      list.add("bias", {a.bias.data(), DType::f32, {3}}, {a.bias_gradient.data(), DType::f32, {4}}),
      "the gradients of parameter 'bias' have shape [4], the parameter [3]", InvalidArgument);
  CHECK(list.entries().size() == 1);
}

TEST_CASE("sharded optimizer: options that cannot be are refused on every rank") {
  const auto expect = [](const ShardedOptions& options, std::string_view part) {
    for (const std::string& message : messages(2, [&](Communicator& world) {
           Arrays a;
           const ShardedOptimizer optimizer(a.list(), world, AdamW{}, options);
         })) {
      CAPTURE(message);
      CHECK(contains(message, part));
    }
  };
  expect({.stage = 7}, "ZeRO stage 7 does not exist; use 0, 1, 2 or 3");
  expect({.stage = 3}, "ParameterList::allocate");
  expect({.bucket_bytes = 0}, "bucket_bytes 0");
  expect({.reduce = DType::i32}, "gradients cannot travel as i32");
  for (const std::string& message : messages(2, [](Communicator& world) {
         const ShardedOptimizer optimizer(ParameterList(), world, AdamW{});
       }))
    CHECK(message == "no parameter is registered");
  for (const std::string& message : messages(1, [](Communicator& world) {
         Arrays a;
         ParameterList list = a.list();
         list.allocate("more", {3}, DType::f32);
         const ShardedOptimizer optimizer(list, world, AdamW{});
       }))
    CHECK(contains(message, "'more' is allocated, 'weight' is not"));
}

TEST_CASE("sharded optimizer: ranks that register different shapes or types name the parameter") {
  for (const bool shape : {true, false}) {
    const auto all = messages(3, [&](Communicator& world) {
      Arrays a;
      const bool other = world.rank() == 1;
      ParameterList list;
      list.add("weight", a.weight.data(), a.weight_gradient.data(), {2, 3}, DType::f32);
      list.add("bias", a.bias.data(), a.bias_gradient.data(), {shape && other ? 2 : 3},
               !shape && other ? DType::bf16 : DType::f32);
      const ShardedOptimizer optimizer(list, world, AdamW{});
    });
    for (const std::string& message : all) {
      CAPTURE(message);
      CHECK(contains(message, "parameter 'bias'"));
      CHECK(message == all[0]);
    }
  }
}

TEST_CASE("sharded optimizer: rank 0's values are taken over, or must be there") {
  for (const bool sync : {true, false}) {
    const auto all = messages(3, [&](Communicator& world) {
      Arrays a;
      a.bias[1] = static_cast<float>(world.rank() + 5);
      const ShardedOptimizer optimizer(a.list(), world, AdamW{}, {.sync = sync});
      CHECK(a.bias[1] == 5);
    });
    for (const std::string& message : all) {
      CAPTURE(message);
      CHECK(sync == message.empty());
      if (!sync) CHECK(contains(message, "parameter 'bias'"));
    }
  }
}

TEST_CASE("sharded optimizer: misuse in a step") {
  Arrays a;
  const auto self = self_communicator();
  ShardedOptimizer optimizer(a.list(), *self, AdamW{});
  optimizer.grad_ready("bias");
  CHECK_THROWS_WITH_AS(optimizer.grad_ready("bias"),
                       "the gradient of parameter 'bias' was reported twice in one step",
                       InvalidArgument);
  CHECK_THROWS_WITH_AS(optimizer.grad_ready("boas"), "no parameter is called 'boas'",
                       InvalidArgument);
  optimizer.step();
  optimizer.grad_ready("bias");
  CHECK_THROWS_AS(static_cast<void>(optimizer.gather("boas")), InvalidArgument);
}

TEST_CASE("sharded optimizer: a step without any gradient, on some ranks and on all") {
  const auto all = messages(2, [](Communicator& world) {
    ToyModel model(world, Memory::optimizers, DType::f32, AdamW{}, {.stage = 2});
    if (world.rank() == 1) model.backward(0, {0});
    model.optimizer().step();  // rank 0's are zeros
    model.optimizer().step();
  });
  for (const std::string& message : all)
    CHECK(message == "step() without any gradient: no rank has reported or written one");
}

TEST_CASE("sharded optimizer: at stage 3 parameters are touched under a lease alone") {
  for (const std::string& message : messages(2, [](Communicator& world) {
         ToyModel model(world, Memory::optimizers, DType::f32, AdamW{}, {.stage = 3});
         ShardedOptimizer& optimizer = model.optimizer();
         {
           const auto lease = optimizer.gather("second");
           CHECK(lease["middle"].elements() == 130);
           CHECK(optimizer.values("middle").data == lease["middle"].data);
           CHECK_THROWS_WITH_AS(lease["head"], "parameter 'head' does not belong to unit 'second'",
                                InvalidArgument);
           CHECK_THROWS_WITH_AS(optimizer.step(), "step() while a lease of unit 'second' is held",
                                InvalidArgument);
         }
         static_cast<void>(optimizer.values("middle"));
       }))
    CHECK(message == "parameter 'middle' is touched outside of a lease of its unit 'second'");
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

TEST_CASE("sharded optimizer: counters that are no JSON object are refused on every rank") {
  const TemporaryFolder folder;
  for (const std::string& message : messages(2, [&](Communicator& world) {
         Arrays a;
         const ShardedOptimizer optimizer(a.list(), world, AdamW{});
         optimizer.save(folder.path / "saved", "{\"epoch\": ");
       })) {
    CHECK(message == "the counters of a checkpoint are not a JSON object: {\"epoch\": ");
  }
  CHECK(!std::filesystem::exists(folder.path / "saved"));
}

}  // namespace ashlar::test
