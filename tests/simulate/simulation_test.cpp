// A simulated step's totals, against sums done by hand, and however ranks are grouped.
#include "simulate/simulation.hpp"

#include <doctest/doctest.h>

#include "ops/product/machine.hpp"
#include "train/tiny_gpt.hpp"

namespace ashlar::simulate {
namespace {

Workload tiny_step(int ranks) {
  TrainConfig config;
  config.micro_batches = 2;
  const ModelTrace how{1, kTinySequence, DType::f32, 0, {}};
  const CompiledStep step =
      compile_step(tiny_gpt_loss(tiny_gpt(), how), config, ranks, host_backend(1));
  return price(step.programs[0], 2, ranks, cluster("dgx-a100"));
}

void check_equal(const Simulation& a, const Simulation& b) {
  CHECK(a.seconds_per_step == b.seconds_per_step);
  CHECK(a.exposed_communication_seconds == b.exposed_communication_seconds);
  CHECK(a.energy_joules == b.energy_joules);
  CHECK(a.communication_seconds == b.communication_seconds);
  CHECK(a.exposed == b.exposed);
  CHECK(a.mfu == b.mfu);
  CHECK(a.events == b.events);
}

}  // namespace

TEST_CASE("simulation: every total has the same bits collapsed and apart, up to 1,024 ranks") {
  for (const int ranks : {8, 64, 1024}) {
    const Workload work = tiny_step(ranks);
    for (const char* text : {"", "3x1.5", "7x0.75"}) {
      const Stragglers stragglers(text, ranks);
      const Simulation collapsed = simulate(work, stragglers, true, 1, 0, cluster("dgx-a100"));
      const Simulation apart = simulate(work, stragglers, false, 1, 0, cluster("dgx-a100"));
      CHECK(collapsed.classes == (*text == 0 ? 1 : 2));
      CHECK(apart.classes == ranks);
      check_equal(collapsed, apart);
    }
    for (const char* text : {"normal:0.02", "lognormal:0.1", "uniform:0.9:1.3", "exponential:0.05",
                             "uniform:1.1:1.1001"}) {  // the last on a few steps of the grid
      const Stragglers drawn(text, ranks, 4);
      const Simulation collapsed = simulate(work, drawn, true, 1, 0, cluster("dgx-a100"));
      const Simulation apart = simulate(work, drawn, false, 1, 0, cluster("dgx-a100"));
      CHECK(collapsed.classes <= apart.classes);
      check_equal(collapsed, apart);
      const auto classes = drawn.classes(true), ranked = drawn.classes(false);
      for (const int rank : {0, ranks / 2, ranks - 1})
        CHECK(
            classes
                .classes[static_cast<std::size_t>(classes.class_of[static_cast<std::size_t>(rank)])]
                .slowdown == ranked.classes[static_cast<std::size_t>(rank)].slowdown);
    }
    CHECK(Stragglers("uniform:1.1:1.1001", ranks).classes(true).classes.size() <= 8);
    const Stragglers none("", ranks);
    CHECK(simulate(work, none, true, 1, 0, cluster("dgx-a100"),
                   {*Distribution::parse("normal:0.05"), 3})
              .classes == ranks);
  }
}

TEST_CASE("simulation: energy, utilisation and waits by hand") {
  Workload work;
  work.ranks = 4;
  work.tasks = {{Task::Kind::compute, 2'000'000'000'000},
                {Task::Kind::start, 0, 0},
                {Task::Kind::wait, 0, 0}};
  work.body_last = 3;
  work.collectives.push_back({CollectiveKind::reduce_scatter, 100, 4, 1'000'000'000'000, "x"});
  work.flops = 6e12;
  work.model_flops = 3e12;
  work.instructions = 3;
  Cluster c = cluster("dgx-a100");
  c.device.peak_flops = 1e12;
  c.device.busy_watts = 400;
  c.device.idle_watts = 60;
  const Simulation s = simulate(work, Stragglers("1x1.5", 4), true, 100, 7, c);
  CHECK(s.seconds_per_step == doctest::Approx(4));  // 3 s on the slow rank, then 1 s
  CHECK(s.energy_joules == doctest::Approx(3 * (2 * 400 + 2 * 60) + 3 * 400 + 60));
  CHECK(s.exposed_communication_seconds == doctest::Approx((3 * 2 + 1) / 4.0));
  CHECK(s.exposed[1] == doctest::Approx(1));
  CHECK(s.slowed_seconds == doctest::Approx(3));  // nothing of it was priced by kind here
  CHECK(s.mfu == doctest::Approx(3 / 4.0));
  CHECK(s.hfu == doctest::Approx(6 / 4.0));
  CHECK(s.tokens_per_second_per_rank == doctest::Approx(25));
  CHECK(s.peak_bytes_per_rank == 7);
  CHECK(s.events == 12);
}

}  // namespace ashlar::simulate
