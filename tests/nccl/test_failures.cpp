// What goes wrong in NCCL is said by the rank that meets it, and hangs nobody.
#include <doctest/doctest.h>

#include <fstream>

#include "comm/failures.hpp"
#include "nccl/ranks.hpp"
#include "support/temporary_folder.hpp"

namespace ashlar {
namespace {

using std::chrono::milliseconds;
using test::connect;
using test::contains;
using test::failure_of;
using test::fake_place;
using test::Faults;

constexpr milliseconds kShort(300);

/// Connects, runs `body` on every rank and returns what each was told; the communicator is then
/// unusable.
std::vector<std::string> tell(int ranks, const std::function<void(Communicator&)>& body) {
  std::vector<std::string> told(static_cast<std::size_t>(ranks));
  launch_threads(ranks, [&](Communicator& threads) {
    const auto nccl = connect(threads, fake_place());
    nccl->set_timeout(kShort);
    std::string& mine = told[static_cast<std::size_t>(threads.rank())];
    mine = failure_of([&] { body(*nccl); });
    if (!mine.empty())
      CHECK(contains(failure_of([&] { nccl->barrier("later"); }), "the group failed before: "));
  });
  return told;
}

std::string cuda_error_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const CudaError& error) {
    return error.what();
  }
  return {};
}

}  // namespace

TEST_CASE("nccl: a library that is not there or lacks a function is named") {
  const std::string missing = cuda_error_of([] { cuda::NcclLibrary("libno_nccl.so.7"); });
  CHECK(contains(missing, "libno_nccl.so.7"));
  CHECK(contains(missing, "LD_LIBRARY_PATH"));
  CHECK(cuda_error_of([] { cuda::NcclLibrary("libm.so.6"); }) ==
        "libm.so.6 has no ncclGetUniqueId; install NCCL 2.18 or later");
}

TEST_CASE("nccl: an error of the network aborts the communicator and is told with the call") {
  const Faults faults;
  const int aborts = faults->aborts;
  const auto told = tell(3, [&](Communicator& communicator) {
    communicator.barrier("start");
    faults->cut_off = 1;
    test::step(communicator);
  });
  CHECK(contains(told[1], " on rank 1: NCCL: remote process exited or there was a network error"));
  for (const int r : {0, 2}) {
    const std::string& text = told[static_cast<std::size_t>(r)];
    CHECK(contains(text, " on rank " + std::to_string(r) +
                             ": not every rank arrived within 0.3 s; one is stopped"));
  }
  CHECK(faults->aborts == aborts + 3);
  CHECK(faults->communicators == 0);
}

TEST_CASE("nccl: a rank that does not arrive ends the others when time is up") {
  const auto told = tell(3, [&](Communicator& communicator) {
    communicator.barrier("start");
    if (communicator.rank() != 2) test::step(communicator);
  });
  for (const int r : {0, 1})
    CHECK(contains(told[static_cast<std::size_t>(r)], "all_gather h.3 12 x f32 (#2) on rank " +
                                                          std::to_string(r) +
                                                          ": not every rank arrived within 0.3 s"));
  CHECK(told[2].empty());
}

TEST_CASE("nccl: counts that differ are told where the library says so") {
  const auto told = tell(2, [](Communicator& communicator) {
    const test::Flat values(DType::f32, 6);
    communicator.broadcast(values.part(0, 5 + communicator.rank()), 0, "config").wait();
  });
  for (const std::string& text : told)
    CHECK(contains(text, "NCCL: invalid usage: ranks gave different counts"));
}

TEST_CASE("nccl: a call that the library refuses fails its communicator alone") {
  const Faults faults;
  launch_threads(2, [&](Communicator& threads) {
    const auto other = connect(threads, fake_place());
    const auto nccl = connect(threads, fake_place());
    other->set_timeout(kShort);
    nccl->set_timeout(kShort);
    threads.barrier("connected");
    faults->refused = 1;
    const std::string told = failure_of([&] { test::step(*nccl); });
    threads.barrier("failed");
    faults->refused = -1;
    CHECK(contains(told, "reduce_scatter h.3.grad 12 x f32 (#2) on rank "));
    CHECK(contains(told, threads.rank() == 1 ? "on rank 1: NCCL: invalid argument"
                                             : "on rank 0: not every rank arrived within 0.3 s"));
    CHECK(contains(failure_of([&] { nccl->barrier("later"); }), "the group failed before: "));
    CHECK(failure_of([&] { test::step(*other); }).empty());
  });
  CHECK(faults->communicators == 0);
}

TEST_CASE("nccl: messages fail alone or with their size") {
  const auto alone = tell(2, [](Communicator& communicator) {
    const test::Flat values(DType::f32, 6);
    if (communicator.rank() == 0) communicator.recv(values.view(), 1, "act").wait();
  });
  CHECK(contains(alone[0], "recv act 6 x f32 from rank 1 (#1) on rank 0: "));
  const auto sizes = tell(2, [](Communicator& communicator) {
    const test::Flat values(DType::f32, 6);
    if (communicator.rank() == 0) communicator.recv(values.view(), 1, "act").wait();
    if (communicator.rank() == 1) communicator.send(values.part(0, 5), 0, "act").wait();
  });
  CHECK(contains(sizes[0], "invalid usage"));
}

TEST_CASE("nccl: an abort ends what is pending and what comes later") {
  const auto told = tell(2, [](Communicator& communicator) {
    const test::Flat values(DType::f32, 6);
    communicator.barrier("start");
    if (communicator.rank() == 1) return communicator.barrier("alone");
    Work work = communicator.all_reduce(values.view(), "norm");
    communicator.abort("out of disk");
    work.wait();
  });
  CHECK(contains(told[0], "all_reduce norm 6 x f32 (#2) on rank 0: "));
  CHECK(contains(told[0], "rank 0 failed: out of disk"));
}

TEST_CASE("nccl: ranks that cannot connect say so") {
  const Faults faults;
  faults->connect_result = 2;  // ncclSystemError
  const auto try_to = [](Communicator& threads) {
    CHECK(failure_of([&] { connect(threads, fake_place()); }) ==
          "NCCL could not connect rank " + std::to_string(threads.rank()) +
              " of 2: NCCL: unhandled system error");
  };
  launch_threads(2, try_to);
  CHECK(faults->communicators == 0);
}

TEST_CASE("nccl: the recorder shows what ran and what failed") {
  tell(2, [](Communicator& communicator) {
    communicator.barrier("start");
    if (communicator.rank() == 1) return;
    CHECK_THROWS_AS(test::step(communicator), CommunicationError);
    const std::vector<std::string> lines = communicator.recent();
    REQUIRE(lines.size() == 2);
    CHECK(lines[0] == "#1 barrier start: done");
    CHECK(lines[1] == "#2 all_gather h.3 12 x f32: failed");
    throw CommunicationError("seen");
  });
}

TEST_CASE("nccl: ranks meet by files, whatever an earlier run has left") {
  const TemporaryFolder folder;
  const std::filesystem::path path = folder / "run";
  const auto leave = [&](const std::string& name, const std::string& text) {
    std::ofstream(path.string() + name) << text;
  };
  const std::string number(32, '5');
  leave(".0-1", number + std::string(NCCL_UNIQUE_ID_BYTES, 'x'));
  leave(".0-1.asked", number);
  leave(".0-2.asked", "");
  leave(".0-2", "cut short");
  launch_threads(3, [&](Communicator& threads) {
    cuda::NcclCommunicator communicator(
        fake_place(),
        std::make_unique<cuda::FileIds>(path, threads.rank(), std::chrono::seconds(60)),
        threads.rank(), 3);
    test::step(communicator);
    const auto half = communicator.split(threads.rank() % 2, 0);
    half->barrier("half");
    const test::Flat token(DType::i32, 1);
    if (half->size() == 2 && half->rank() == 0) half->send(token.view(), 1, "token").wait();
    if (half->size() == 2 && half->rank() == 1) half->recv(token.view(), 0, "token").wait();
  });
  CHECK(std::filesystem::is_empty(folder.path));
}

TEST_CASE("nccl: a rank that meets nobody by files says where it waited") {
  const TemporaryFolder folder;
  const std::filesystem::path path = folder / "run";
  const auto meet = [&](int rank, int size) {
    cuda::NcclCommunicator(fake_place(1 << 20, kShort),
                           std::make_unique<cuda::FileIds>(path, rank, kShort), rank, size);
  };
  CHECK(contains(failure_of([&] { meet(1, 2); }), "rank 0 did not come to " + path.string()));
  CHECK_THROWS_AS(cuda::FileIds(folder / "no" / "run", 0, kShort), InvalidArgument);
}

}  // namespace ashlar
