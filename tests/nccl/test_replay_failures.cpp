// Ranks that fail while others replay, and what is recorded of a communicator.
#include <doctest/doctest.h>

#include <chrono>
#include <string>

#include "comm/failures.hpp"
#include "comm/values.hpp"
#include "nccl/late_rank.hpp"

namespace ashlar {
namespace {

using namespace test;  // NOLINT: what its own header declares
using Clock = std::chrono::steady_clock;

constexpr std::int64_t kBefore = 3;  // steps: issued, recorded, replayed

using TakeStep = std::function<void(const std::function<void()>& load)>;

/// What each rank is told when rank 1 takes no further step after kBefore, or one as `fail` does.
std::array<std::string, 2> told(const std::function<void(const TakeStep& step)>& fail) {
  const Faults faults;
  const int stuck = faults->stuck;
  std::array<std::string, 2> errors;
  launch_threads(2, [&](Communicator& threads) {
    LateRank rank(threads);
    const Run run{.ranks = 2, .stage = 3, .layers = 1, .micro_batches = 5};
    TrainConfig config = config_of(run);
    config.memory = &rank.device.memory();
    TrainStep step(*rank.world, model_of(run), config, {}, {{}, {}, &rank.side});
    const auto take = [&](const std::function<void()>& load) {
      step.step([&](std::int64_t k, const Batch& batch) {
        load();
        load_tokens(batch, k, threads.rank());
      });
    };
    const auto nothing = [] {};
    for (std::int64_t i = 0; i < kBefore; ++i) take(nothing);
    CHECK(rank.device.launches > rank.device.recordings);
    rank.world->set_timeout(std::chrono::seconds(2));  // of a section, with its kernels
    const Clock::time_point begin = Clock::now();
    std::string& error = errors[static_cast<std::size_t>(threads.rank())];
    error = error_of([&] { threads.rank() == 1 ? fail(take) : take(nothing); });
    CHECK(Clock::now() - begin < std::chrono::seconds(10));
    if (!error.empty())
      CHECK(contains(error_of([&] { take(nothing); }), "the group failed before: "));
    threads.barrier();
  });
  CHECK(faults->communicators == 0);
  CHECK(faults->stuck == stuck);
  return errors;
}

}  // namespace

TEST_CASE("nccl: a rank that never comes to a replayed step ends the others when time is up") {
  const auto errors = told([](const auto&) {});
  CHECK(contains(errors[0],
                 "or what is replayed with it on rank 0: not every rank arrived within "
                 "2 s; one is stopped"));
  CHECK(errors[1].empty());
}

TEST_CASE("nccl: an error of the network in a replayed step is told where NCCL says so") {
  const auto errors = told([](const TakeStep& take) {
    const Faults faults;
    faults->cut_off = 1;
    take([] {});
  });
  CHECK(contains(errors[0], "on rank 0: not every rank arrived within 2 s"));
  CHECK(contains(errors[1], "or what is replayed with it on rank 1: NCCL: remote process exited"));
}

TEST_CASE("nccl: a rank that fails within a replayed step ends the others") {
  int loads = 0;
  const auto errors = told([&](const TakeStep& take) {
    take([&] {
      if (++loads == 3) throw InvalidArgument("no more tokens");
    });
  });
  CHECK(contains(errors[0], "on rank 0: not every rank arrived within 2 s"));
  CHECK(errors[1] == "no more tokens");
}

TEST_CASE("nccl: recorded collectives run with each launch, are counted then, and end with it") {
  const Faults faults;
  launch_threads(2, [&](Communicator& threads) {
    LateRank rank(threads);
    test::Flat values = filled(DType::i32, 6, 1);
    for (int i = 0; i < 6; ++i) values.set(i, 1);
    rank.world->all_reduce(values.view(), "norm", rank.kernels).wait();
    const auto sum_of = [&] {
      std::int64_t all = 0;
      for (const std::int64_t bytes : rank.world->sent_bytes()) all += bytes;
      return all;
    };
    const std::int64_t before = sum_of();
    detail::StreamState& stream = detail::state_of(rank.kernels);
    stream.begin_recording();
    CHECK_THROWS_AS(rank.world->send(values.view(), 1 - threads.rank(), "act", rank.kernels),
                    InvalidArgument);
    Work recorded = rank.world->all_reduce(values.view(), "norm", rank.kernels);
    CHECK(recorded.done());
    recorded.wait();
    recorded.join(rank.kernels);
    auto recording = stream.end_recording();
    CHECK(sum_of() == before);
    const std::size_t lines = rank.world->recent().size();
    for (int i = 1; i <= 3; ++i) {
      const Event from = rank.kernels.record();
      recording->launch();
      Work replayed = recorded.replayed(from, rank.kernels.record());
      replayed.wait();
      CHECK(values.get(5) == 2 << i);
      CHECK(sum_of() - before == i * 24);
      CHECK(rank.world->recent().size() == lines + static_cast<std::size_t>(i));
    }
    CHECK(contains(rank.world->recent().back(), "all_reduce norm 6 x i32: done"));

    threads.barrier();
    const Clock::time_point begin = Clock::now();
    rank.world->abort("out of disk");
    CHECK(Clock::now() - begin < std::chrono::seconds(5));
    CHECK(contains(failure_of([&] { recorded.wait(); }), "out of disk"));
    recording.reset();
  });
  CHECK(faults->stuck == 0);
}

TEST_CASE("nccl: work on the stream that ends recordings is refused") {
  cuda::NcclPlace place = fake_place();
  place.native_stream = [](StreamRef) -> void* { return nullptr; };
  launch_threads(2, [&](Communicator& threads) {
    CHECK(contains(failure_of([&] { connect(threads, place); }), "NCCL: "));
  });
}

}  // namespace ashlar
