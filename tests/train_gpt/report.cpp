#include "train_gpt/report.hpp"

#include <doctest/doctest.h>
#include <sys/mman.h>

#include <cstdlib>

#include "support/temporary_folder.hpp"
#include "train_gpt/hardware.hpp"

using namespace train_gpt;

TEST_CASE("report: model-state bytes as in the ZeRO paper's figure 1") {
  // 7.5e9 parameters, 64 ranks, 16-bit, K = 12: 120, 31.4, 16.6 and 1.88 GB.
  ZeroCase zero{.trainable = 7'500'000'000, .ranks = 64, .bf16 = true};
  const auto gigabytes = [&](int stage) {
    zero.stage = stage;
    const ModelStateBytes s = state_formula(zero);
    return static_cast<double>(s.parameter + s.gradient + s.optimizer_state) / 1e9;
  };
  CHECK(gigabytes(0) == doctest::Approx(120).epsilon(1e-3));
  CHECK(gigabytes(1) == doctest::Approx(31.4).epsilon(2e-3));
  CHECK(gigabytes(2) == doctest::Approx(16.6).epsilon(3e-3));
  CHECK(gigabytes(3) == doctest::Approx(1.88).epsilon(4e-3));
}

TEST_CASE(
    "report: gradients stay whole only when reduced after the last of several micro-batches") {
  ZeroCase zero{.trainable = 1000, .frozen = 500, .ranks = 4, .stage = 2};
  CHECK(state_formula(zero).parameter == 6000);
  CHECK(state_formula(zero).gradient == 1000);
  CHECK(state_formula(zero).optimizer_state == 2000);
  zero.accumulate = 2;
  CHECK(state_formula(zero).gradient == 4000);
  zero.layer_order = true;
  CHECK(state_formula(zero).gradient == 1000);
  zero.layer_order = false;
  zero.reduce_each = true;
  CHECK(state_formula(zero).gradient == 1000);
  zero.bf16 = true;  // fp32 sums over the micro-batches
  CHECK(state_formula(zero).gradient == 1000);
  zero.accumulate = 1;
  CHECK(state_formula(zero).gradient == 500);
  zero.stage = 3;
  CHECK(state_formula(zero).parameter == 750);
}

TEST_CASE("report: a column per rank beside the formula, or the extremes of many") {
  const ZeroCase zero{.trainable = 1 << 20,
                      .ranks = 2,
                      .stage = 3,
                      .reduce_each = true,
                      .padded = 1 << 20,
                      .padded_trainable = 1 << 20};
  std::vector<RankReport> ranks(2);
  ranks[0].state = {2 << 20, 3 << 20, 5 << 20};
  ranks[1].state.parameter = 7 << 20;
  ranks[1].sent[0] = 512;
  ranks[1].peak.total = 9 << 20;
  const std::string table = report_table(zero, ranks);
  CHECK(contains(table, "parameter                   2.00 MiB      2.00 MiB      7.00 MiB\n"));
  CHECK(contains(table, "sum                         8.00 MiB     10.00 MiB      7.00 MiB\n"));
  CHECK(contains(table, "all gather                  4.00 MiB           0 B         512 B\n"));
  CHECK(contains(table, "total                                          0 B      9.00 MiB\n"));
  ranks.resize(9);
  ranks[8].state.parameter = 11 << 20;
  const std::string many = report_table(zero, ranks);
  CHECK(contains(many, "lowest rank  highest rank\n"));
  CHECK(contains(many, "parameter                   2.00 MiB           0 B     11.00 MiB\n"));
}

TEST_CASE("report: hardware") {
  const Hardware hardware = detect_hardware();
  CHECK(!hardware.cpu.empty());
  CHECK(hardware.cores >= 1);
  CHECK(hardware.memory_bytes > 1 << 26);
  CHECK(to_json(hardware)["cores"] == hardware.cores);
}

TEST_CASE("report: the peak counts private pages in full and peers' shared pages not at all") {
  constexpr std::int64_t kBytes = 64 << 20;
  constexpr std::int64_t kSlack = 8 << 20;
  const auto touch = [](int flags) {  // by the kernel, which sanitizers do not shadow
    void* memory = ::mmap(nullptr, kBytes, PROT_READ | PROT_WRITE,
                          flags | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    REQUIRE(memory != MAP_FAILED);
    return memory;
  };
  ::munmap(touch(MAP_PRIVATE), kBytes);  // an earlier peak does not count
  const ResidentMeter meter;
  REQUIRE(!meter.upper_bound_only());
  CHECK(meter.peak_bytes(0, 1) < kSlack);
  ::munmap(touch(MAP_PRIVATE), kBytes);
  const std::int64_t one = meter.peak_bytes(0, 1);  // after it is gone: a peak
  CHECK(std::abs(one - kBytes) < kSlack);
  CHECK(std::abs(meter.peak_bytes(0, 2) - kBytes / 2) < kSlack);

  const ResidentMeter again;
  void* window = touch(MAP_SHARED);
  CHECK(std::abs(again.peak_bytes(kBytes, 1) - kBytes) < kSlack);  // all its own
  CHECK(std::abs(again.peak_bytes(kBytes / 2, 1) - kBytes / 2) < kSlack);
  CHECK(again.peak_bytes(0, 1) < kSlack);
  ::munmap(window, kBytes);
}
