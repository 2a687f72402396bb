// The sharded optimizer: what a caller may get wrong, and what every rank is told.
#include <doctest/doctest.h>

#include <array>
#include <cmath>

#include "ashlar/error.hpp"
#include "support/temporary_folder.hpp"
#include "wrap/messages.hpp"
#include "wrap/toy_model.hpp"

namespace ashlar::test {
namespace {

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
  CHECK_THROWS_WITH_AS(add("weight", a.weight.data(), nullptr, DType::f32),
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
  expect({.clip = std::nan("")}, "clip nan");
  expect({.reduce = DType::i32}, "gradients cannot travel as i32");
  expect({.schedule = Schedule{.lr = -1}}, "a learning rate of -1");
  expect({.loss_scale = LossScale{0, 5}}, "a loss scale of 0 that grows after 5 steps");
  expect({.loss_scale = LossScale{8, 0}}, "a loss scale of 8 that grows after 0 steps");
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
  CHECK_THROWS_AS(optimizer.set_lr(std::nan("")), InvalidArgument);
}

TEST_CASE("sharded optimizer: gradients that cannot be taken are refused by name") {
  Arrays a;
  const auto self = self_communicator();
  ParameterList list;
  list.add("weight", a.weight.data(), nullptr, {2, 3}, DType::f32);
  ShardedOptimizer optimizer(list, *self, AdamW{});
  float* const data = a.weight_gradient.data();
  CHECK_THROWS_WITH_AS(optimizer.grad_ready("weight"),
                       "the gradient of parameter 'weight' is in no memory that was registered: "
                       "report it with its view",
                       InvalidArgument);
  CHECK_THROWS_WITH_AS(optimizer.grad_ready("weight", {data, DType::f32, {3}}),
                       "the gradient of parameter 'weight' has shape [3], the parameter [2, 3]",
                       InvalidArgument);
  CHECK_THROWS_WITH_AS(optimizer.grad_ready("weight", {nullptr, DType::f32, {2, 3}}),
                       "the gradient of parameter 'weight' is a null pointer", InvalidArgument);
  CHECK_THROWS_WITH_AS(optimizer.grad_ready("weight", {data, DType::i32, {2, 3}}),
                       "the gradient of parameter 'weight' is i32", InvalidArgument);
  a.weight_gradient.fill(2);
  optimizer.grad_ready("weight", {data, DType::f32, {2, 3}});  // none of those counted
  CHECK(optimizer.step().grad_norm == doctest::Approx(2 * std::sqrt(6.0)));

  ToyModel model(*self, Memory::optimizers, DType::f32, AdamW{}, {.stage = 2});
  model.optimizer().gradient("head");
  model.optimizer().grad_ready("head");
  CHECK_THROWS_WITH_AS(model.optimizer().gradient("head"),
                       "the gradient of parameter 'head' is asked for after it was reported",
                       InvalidArgument);
}

TEST_CASE("sharded optimizer: reads that cannot be are refused on every rank") {
  for (const int stage : {1, 3}) {
    CAPTURE(stage);
    const auto read = [&](const char* parameter, std::size_t elements, DType dtype,
                          const ReadOptions& options) {
      return messages(2, [&](Communicator& world) {
        ToyModel model(world, Memory::optimizers, DType::f32, AdamW{}, {.stage = stage});
        std::vector<float> memory(elements);
        const auto count = static_cast<std::int64_t>(elements);
        const TensorView view(elements == 0 ? nullptr : memory.data(), dtype, {count});
        model.optimizer().read(parameter, view, options);
      });
    };
    const auto expect = [](const std::vector<std::string>& all, const std::string& text) {
      for (const std::string& message : all) CHECK(message == "read of parameter " + text);
    };
    expect(read("head", 3, DType::f32, {.everywhere = true}),
           "'head': it has shape [33], the memory for it [3]");
    expect(read("head", 33, DType::i32, {.everywhere = true}), "'head': it cannot become i32");
    expect(read("head", 0, DType::f32, {.everywhere = true}),
           "'head': a rank that is to get it gives no memory");
    expect(read("head", 33, DType::f32, {.everywhere = true, .average = true}),
           "'head': no average is kept; set the optimizer's ema");
    for (const std::string& message : read("head", 33, DType::f32, {.everywhere = true}))
      CHECK(message.empty());
  }
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
