// What the rules refuse, and learning-rate schedules.
#include <doctest/doctest.h>

#include <array>
#include <cmath>
#include <limits>
#include <numbers>
#include <vector>

#include "ashlar/error.hpp"
#include "ashlar/optimizer.hpp"

using namespace ashlar;

namespace {

/// A valid AdamW call over ten elements, to be spoiled one argument at a time.
struct Call {
  std::array<float, 10> memory{};
  TensorView master{memory.data(), DType::f32, {10}};
  TensorView parameter;
  TensorView gradient{memory.data(), DType::f32, {10}};
  std::vector<TensorView> state{master, master};
  std::vector<Segment> segments{{0, 4, true}, {4, 4, false}, {4, 10, false}};
  StepScalars scalars{.learning_rate = 0.1};

  void run() const {
    make_optimizer(AdamW{})->step(master, parameter, gradient, state, segments, scalars);
  }
};

}  // namespace

TEST_CASE("rules: calls that break the contract are refused by name") {
  Call().run();
  const auto refuses = [](const char* message, auto spoil) {
    Call call;
    spoil(call);
    CHECK_THROWS_WITH_AS(call.run(), message, InvalidArgument);
  };
  refuses("AdamW step: the gradient has 9 elements, the master 10",
          [](Call& c) { c.gradient = c.gradient.flat_slice(0, 9); });
  refuses("AdamW step: the gradient has element type i32",
          [](Call& c) { c.gradient.dtype = DType::i32; });
  refuses("AdamW step: the master has element type bf16",
          [](Call& c) { c.master.dtype = DType::bf16; });
  refuses("AdamW step: the parameter has element type f32",
          [](Call& c) { c.parameter = c.master; });
  refuses("AdamW step: the master is not contiguous", [](Call& c) { c.master.strides = {2}; });
  refuses("AdamW step: a state has no memory", [](Call& c) { c.state[1].data = nullptr; });
  refuses("AdamW step: 1 states were given, the rule keeps 2", [](Call& c) { c.state.pop_back(); });
  refuses("AdamW step: the segments cover 4 of 10 elements",
          [](Call& c) { c.segments.pop_back(); });
  refuses("AdamW step: segment [5, 10) does not continue at element 4",
          [](Call& c) { c.segments[2].begin = 5; });
  refuses("AdamW step: step 0 is not 1 or more", [](Call& c) { c.scalars.step = 0; });
  refuses("AdamW step: learning rate inf or gradient scale 1 is not finite",
          [](Call& c) { c.scalars.learning_rate = std::numeric_limits<double>::infinity(); });
}

TEST_CASE("rules: settings out of range are refused by name") {
  CHECK_THROWS_WITH_AS(make_optimizer(AdamW{.beta1 = 1}), "beta1 is 1: it must be in [0, 1)",
                       InvalidArgument);
  CHECK_THROWS_AS(make_optimizer(AdamW{.beta2 = -0.1}), InvalidArgument);
  CHECK_THROWS_AS(make_optimizer(AdamW{.epsilon = 0}), InvalidArgument);
  CHECK_THROWS_AS(make_optimizer(AdamW{.weight_decay = -1}), InvalidArgument);
  CHECK_THROWS_AS(make_optimizer(Sgd{.momentum = std::nan("")}), InvalidArgument);
  CHECK_THROWS_AS(make_optimizer(Sgd{.momentum = 0, .nesterov = true}), InvalidArgument);
}

TEST_CASE("schedule: linear warm-up, then constant") {
  const Schedule schedule{.lr = 0.4, .warmup = 4};
  CHECK(schedule.rate(1) == doctest::Approx(0.1));
  CHECK(schedule.rate(3) == doctest::Approx(0.3));
  CHECK(schedule.rate(4) == 0.4);
  CHECK(schedule.rate(5) == 0.4);
  CHECK(schedule.rate(1'000'000) == 0.4);
  CHECK(Schedule{.lr = 0.4}.rate(1) == 0.4);
  CHECK(Schedule{.lr = 0}.rate(7) == 0);
}

TEST_CASE("schedule: cosine falls from lr after warm-up to lr x floor at the last step") {
  const Schedule schedule{
      .kind = Schedule::Kind::cosine, .lr = 2, .warmup = 10, .steps = 110, .floor = 0.25};
  CHECK(schedule.rate(5) == doctest::Approx(1));
  CHECK(schedule.rate(10) == 2);
  CHECK(schedule.rate(60) == doctest::Approx(1.25));
  CHECK(schedule.rate(110) == doctest::Approx(0.5));
  CHECK(schedule.rate(200) == doctest::Approx(0.5));
  for (std::int64_t t = 11; t <= 110; ++t) {
    const double x = static_cast<double>(t - 10) / 100;
    const double expected = 0.5 + 0.5 * (2 - 0.5) * (1 + std::cos(std::numbers::pi * x));
    REQUIRE(schedule.rate(t) == doctest::Approx(expected));
    REQUIRE(schedule.rate(t) < schedule.rate(t - 1));
  }
}
