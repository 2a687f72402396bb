// Mutations of programs that must not go unnoticed.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "ashlar/error.hpp"
#include "graph/early_end.hpp"
#include "graph/random_program.hpp"

namespace ashlar {

TEST_CASE("mutation: a gather that is deleted makes the loss wrong") {
  for (std::uint64_t seed = 0; seed < 10; ++seed) {
    Rig rig(seed, at_stage(3));
    rig.bind();
    const float expected = rig.run();
    Rig mutant(seed, at_stage(3));
    int deleted = -1;
    std::erase_if(mutant.program.steps, [&](const Step& step) {
      const Node& node = mutant.program.graph.nodes[static_cast<std::size_t>(step.node)];
      if (deleted < 0 && node.op->name == "gather") deleted = step.node;
      return step.node == deleted;
    });
    REQUIRE(deleted >= 0);
    mutant.program.body_last -= 2;
    mutant.bind();
    mutant.executor->poison = false;  // planned ends count instructions, of which two are gone
    CHECK_FALSE(same_bits(mutant.run(), expected));
  }
}

TEST_CASE("mutation: a lifetime that is one instruction short is caught by poison") {
  int caught = 0, tried = 0;
  for (std::uint64_t seed = 0; seed < 10; ++seed) {
    Rig rig(seed, at_stage(3));
    rig.bind();
    const float expected = rig.run();
    const auto state = state_of(rig);
    for (std::size_t b = 0; b < rig.program.placed.size(); ++b) {
      const StorageBuffer& buffer = rig.program.placed[b].first;
      // Buffers whose last instruction only writes or waits are not read any more.
      if (buffer.category == Category::workspace ||
          buffer.last > static_cast<int>(rig.program.steps.size()))
        continue;
      const Step& last = rig.program.steps[static_cast<std::size_t>(buffer.last - 1)];
      const Node& node = rig.program.graph.nodes[static_cast<std::size_t>(last.node)];
      const bool reads =
          std::ranges::any_of(node.inputs, [&](ValueId id) { return lies_in(rig.program, id, b); });
      if (!reads || node.op->run == nullptr || buffer.last - buffer.first < 2) continue;
      Rig mutant(seed, at_stage(3));
      --mutant.program.placed[b].first.last;
      mutant.bind();
      ++tried;
      try {
        const bool same_loss = same_bits(mutant.run(), expected);
        caught += !same_loss || mutant.norm() != rig.norm() || state_of(mutant) != state;
      } catch (const Error&) {
        ++caught;  // the update refuses a scale that is not finite
      }
    }
  }
  CHECK(tried > 50);
  CHECK(caught == tried);
}

TEST_CASE("mutation: a lifetime that ends before the wait of a collective is a race") {
  int tried = 0;
  for (std::uint64_t seed = 0; seed < 30; ++seed) {
    const Rig rig(seed, at_stage(1 + static_cast<int>(seed % 3), 2));
    EarlyEnds ends(rig.program);
    CHECK(ends.ending_in_flight() == 0);
    ends.try_all(1);
    CHECK(ends.unseen == "");
    tried += ends.tried;
  }
  CHECK(tried > 50);
}

TEST_CASE("mutation: a missing wait is a race") {
  Rig rig(1, at_stage(3), {2, true});
  detect_races(rig.program, 1);
  int found = 0, waits = 0;
  for (std::size_t i = 0; i < rig.program.steps.size(); ++i) {
    if (rig.program.steps[i].kind != Instruction::Kind::wait) continue;
    ++waits;
    Program mutant = rig.program;
    mutant.steps.erase(mutant.steps.begin() + static_cast<std::ptrdiff_t>(i));
    try {
      detect_races(mutant, 1);
    } catch (const Error&) {
      ++found;
    }
  }
  CHECK(waits > 4);
  CHECK(found == waits);
}

}  // namespace ashlar
