// A step whose Program is another on one rank is refused by all of them before it takes memory.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>

#include "ashlar/communicator.hpp"
#include "ashlar/error.hpp"
#include "sharding/train_step_parts.hpp"
#include "support/temporary_folder.hpp"
#include "train/tiny_gpt.hpp"

namespace ashlar {
namespace {

constexpr int kRanks = 3;

struct Refusals {
  std::string first_difference;  // as it is to be told
  std::vector<std::string> told;
  std::string reached;  // which ranks took memory
};

bool moves(const Step& step) {
  return step.kind != Instruction::Kind::wait && !step.outputs.empty() && step.outputs[0].present &&
         step.outputs[0].space == Space::transient;
}

/// On rank 1 the outputs of the movable steps `first` and of all that follow lie 64 bytes further.
Refusals train(std::size_t first) {
  Refusals result;
  result.told.resize(kRanks, "nothing thrown");
  launch_threads(kRanks, [&](Communicator& world) {
    const auto shift = [&](Program& program) {
      if (world.rank() != 1) return;
      const std::vector<std::string> before = describe(program);
      std::size_t movable = 0;
      for (Step& step : program.steps)
        if (moves(step) && movable++ >= first) step.outputs[0].offset += kAlignment;
      REQUIRE(movable > first);
      const std::vector<std::string> after = describe(program);
      const auto [old_line, new_line] = std::ranges::mismatch(before, after);
      REQUIRE(old_line != before.end());
      result.first_difference =
          fmt::format("rank 0 has '{}', rank 1 has '{}'", *old_line, *new_line);
    };
    const auto bound = [&](Executor&) { result.reached += std::to_string(world.rank()); };
    TrainConfig config;
    config.zero = {3, 5000, 1};
    result.told[static_cast<std::size_t>(world.rank())] = message_of<InvalidArgument>([&] {
      TrainStep(world, tiny_gpt_loss(tiny_gpt(), {1, kTinySequence, DType::f32, 0, {}}), config, {},
                {shift, bound});
    });
  });
  return result;
}

}  // namespace

TEST_CASE("agreement: a step that is compiled otherwise on one rank is refused by all") {
  for (const std::size_t first : {0, 1, 20}) {
    const Refusals result = train(first);
    CAPTURE(result.first_difference);
    for (const std::string& message : result.told) {
      CHECK(contains(message, "ranks disagree on compiled step, entry "));
      CHECK(contains(message, result.first_difference));
    }
    CHECK(result.reached == "");
  }
}

}  // namespace ashlar
