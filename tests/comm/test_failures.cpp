#include <doctest/doctest.h>

#include <atomic>
#include <mutex>

#include "comm/failures.hpp"
#include "comm/group_communicator.hpp"

namespace ashlar {
namespace {

using std::chrono::milliseconds;
using test::contains;
using test::failure_of;

/// Runs `body` on every rank and returns what each was told.
std::vector<std::string> tell(int ranks, const std::function<void(Communicator&)>& body) {
  std::vector<std::string> told(static_cast<std::size_t>(ranks));
  launch_threads(ranks, [&](Communicator& communicator) {
    told[static_cast<std::size_t>(communicator.rank())] = failure_of([&] { body(communicator); });
    if (told[static_cast<std::size_t>(communicator.rank())].empty()) return;
    CHECK_THROWS_AS(communicator.barrier("later"), CommunicationError);
  });
  return told;
}

detail::Fault on_rank(Communicator& communicator, int rank, detail::Fault fault) {
  return communicator.rank() == rank ? fault : detail::Fault{};
}

}  // namespace

TEST_CASE("failure: a rank that throws names itself to the others and its error is rethrown") {
  for (const int ranks : {2, 3, 5}) {
    std::atomic<int> told = 0;
    const auto body = [&](Communicator& communicator) {
      detail::FaultCommunicator faulty(
          communicator, on_rank(communicator, 1, {detail::Fault::Action::throws, 5, {}}));
      try {
        while (true) test::step(faulty);
      } catch (const CommunicationError& error) {
        CHECK(contains(error.what(), "rank 1 failed: injected fault"));
        CHECK(contains(error.what(), "reduce_scatter h.3.grad 12 x f32"));
        ++told;
        throw;
      }
    };
    CHECK_THROWS_WITH_AS(launch_threads(ranks, body), "injected fault", Error);
    CHECK(told == ranks - 1);
  }
}

TEST_CASE("failure: a rank that does not arrive is named when time is up") {
  const auto told = tell(3, [&](Communicator& communicator) {
    communicator.set_timeout(milliseconds(150));
    detail::FaultCommunicator faulty(
        communicator, on_rank(communicator, 2, {detail::Fault::Action::stalls, 2, {}}));
    test::step(faulty);
  });
  for (const std::string& text : told) {
    CHECK(contains(text, "rank 2 did not arrive within 0.15 s"));
    CHECK(contains(text, "reduce_scatter h.3.grad 12 x f32 (#2) on rank"));
  }
}

TEST_CASE("failure: the recorder shows what ran before and what failed") {
  tell(3, [&](Communicator& communicator) {
    detail::FaultCommunicator faulty(
        communicator, on_rank(communicator, 1, {detail::Fault::Action::throws, 5, {}}));
    const auto two_steps = [&] {
      test::step(faulty);
      test::step(faulty);
    };
    CHECK_THROWS_AS(two_steps(), Error);
    if (communicator.rank() == 1) return communicator.abort("injected fault");
    const std::vector<std::string> lines = communicator.recent();
    REQUIRE(lines.size() == 5);
    CHECK(lines[3] == "#4 all_gather h.3 12 x f32: done");
    CHECK(lines[4] == "#5 reduce_scatter h.3.grad 12 x f32: failed");
  });
}

TEST_CASE("failure: ranks that call different things are told what each called") {
  struct Case {
    const char* first;
    const char* second;
    std::function<void(Communicator&)> odd;
  };
  const test::Flat flat(DType::f32, 6);
  const test::Flat wide(DType::f64, 6);
  const Case cases[] = {
      {"all_reduce norm 6 x f32", "barrier norm", [](auto& c) { c.barrier("norm"); }},
      {"all_reduce norm 6 x f32", "all_reduce norm 5 x f32",
       [&](auto& c) { c.all_reduce(flat.part(0, 5), "norm").wait(); }},
      {"all_reduce norm 6 x f32", "all_reduce norm 6 x f64",
       [&](auto& c) { c.all_reduce(wide.view(), "norm").wait(); }},
      {"all_reduce norm 6 x f32", "all_reduce loss 6 x f32",
       [&](auto& c) { c.all_reduce(flat.view(), "loss").wait(); }},
      {"all_reduce norm 6 x f32", "broadcast norm 6 x f32 from rank 1",
       [&](auto& c) { c.broadcast(flat.view(), 1, "norm").wait(); }},
  };
  for (const Case& c : cases) {
    CAPTURE(c.second);
    const auto told = tell(3, [&](Communicator& communicator) {
      test::Flat mine(DType::f32, 6);
      if (communicator.rank() == 2) return c.odd(communicator);
      communicator.all_reduce(mine.view(), "norm").wait();
    });
    const std::string expected =
        std::string("ranks diverged: rank 0 called ") + c.first + " and rank 2 called " + c.second;
    for (const std::string& text : told) CHECK(contains(text, expected));
  }
}

TEST_CASE("failure: messages that differ in size fail on both sides") {
  const auto told = tell(2, [&](Communicator& communicator) {
    const test::Flat flat(DType::f32, 6);
    if (communicator.rank() == 0) communicator.send(flat.view(), 1, "act").wait();
    if (communicator.rank() == 1) communicator.recv(flat.part(0, 5), 0, "act").wait();
  });
  for (const std::string& text : told)
    CHECK(contains(text, "recv act 5 x f32 from rank 0, but rank 0 called send act 6 x f32"));
}

TEST_CASE("failure: a rank that leaves is named at once") {
  const auto told = tell(3, [&](Communicator& communicator) {
    if (communicator.rank() != 1) communicator.barrier("end");
  });
  CHECK(told[1].empty());
  CHECK(contains(told[0], "rank 1 has left the group"));
  CHECK(contains(told[2], "rank 1 has left the group"));
}

TEST_CASE("failure: abort ends what is pending and what comes later, on this rank too") {
  const auto told = tell(3, [&](Communicator& communicator) {
    if (communicator.rank() == 0) communicator.abort("out of disk");
    communicator.barrier("one");
  });
  for (const std::string& text : told) CHECK(contains(text, "rank 0 failed: out of disk"));
}

// A rank gives up while its peers copy: freed pages that somebody still reads would end the test.
TEST_CASE("failure: buffers may go as soon as wait has thrown") {
  for (int round = 0; round < 12; ++round) {
    const auto body = [&](Communicator& communicator) {
      constexpr std::int64_t kCount = 3 << 20;
      const auto gather_once = [&] {
        const test::Flat send(DType::f32, kCount);
        const test::Flat recv(DType::f32, kCount * communicator.size());
        const std::array<Transfer, 1> gather = {{{send.view(), recv.view()}}};
        Work work = communicator.all_gather(gather, "h");
        if (communicator.rank() == round % 3) {
          std::this_thread::sleep_for(std::chrono::milliseconds(1 + round / 2));
          communicator.abort("enough");
        }
        work.wait();
      };
      while (true) gather_once();
    };
    CHECK_THROWS_AS(launch_threads(3, body), CommunicationError);
  }
}

TEST_CASE("overlap: a delayed collective is in flight while its caller goes on") {
  launch_threads(2, [](Communicator& communicator) {
    detail::FaultCommunicator slow(communicator,
                                   {detail::Fault::Action::none, 1, std::chrono::milliseconds(30)});
    const test::Flat first = test::filled(DType::f32, 8, 1);
    const test::Flat second = test::filled(DType::f32, 8, 2);
    Work one = slow.all_reduce(first.view(), "one", {});
    Work two = slow.all_reduce(second.view(), "two", {});
    CHECK_FALSE(one.done());
    CHECK_FALSE(two.done());
    two.wait();
    CHECK(one.done());
    const auto records =
        dynamic_cast<detail::GroupCommunicator&>(communicator).recorder().records();
    REQUIRE(records.size() == 2);
    CHECK(records[0].queued < records[1].queued);
    CHECK(records[1].queued < records[0].ended);
    CHECK(records[0].ended < records[1].started);
  });
}

TEST_CASE("launch_threads: needs a rank") {
  CHECK_THROWS_AS(launch_threads(0, [](Communicator&) {}), InvalidArgument);
}

}  // namespace ashlar
