// NcclCommunicator keeps the contract of every communicator.
#include <doctest/doctest.h>

#include <future>

#include "comm/conformance.hpp"
#include "comm/values.hpp"
#include "nccl/ranks.hpp"

namespace ashlar {
namespace {

using test::connect;
using test::fake_place;
using test::Faults;
using test::Flat;

}  // namespace

TEST_CASE("nccl: conforms, with flats in one piece and in many") {
  const Faults faults;
  const int aborts = faults->aborts;
  faults->delay_us = 300;
  faults->looks = 2;
  for (const int ranks : {1, 2, 3, 4}) {
    CAPTURE(ranks);
    const std::int64_t scratch = ranks == 3 ? 32 << 20 : 100'000;
    launch_threads(ranks, [&](Communicator& threads) {
      const auto communicator = connect(threads, fake_place(scratch));
      CHECK(communicator->name() == "nccl");
      CHECK(communicator->rank() == threads.rank());
      CHECK(communicator->size() == ranks);
      test::check_conformance(*communicator);
    });
  }
  CHECK(faults->communicators == 0);
  CHECK(faults->aborts == aborts);
}

TEST_CASE("nccl: conforms with buffers in other memory than the device's") {
  launch_threads(2, [&](Communicator& threads) {
    const cuda::NcclPlace place = fake_place();
    detail::StagedCommunicator communicator(
        connect(threads, place),
        std::make_shared<detail::Staging>(Device{DeviceType::cuda, 0}, place.memory, place.memory,
                                          Stream()));
    test::check_conformance(communicator);
  });
}

TEST_CASE("nccl: sums have the bits of threads") {
  for (const DType type : {DType::f32, DType::bf16, DType::f16}) {
    launch_threads(3, [&](Communicator& threads) {
      const auto nccl = connect(threads, fake_place(50'000));
      const std::int64_t count = 3 * kNormBlock + 77;
      const std::uint64_t seed = 100 + static_cast<std::uint64_t>(threads.rank());
      const Flat send = test::filled(type, 3 * count, seed);
      std::vector<double> squares(4);
      std::vector<Flat> recvs;
      std::size_t next = 0;
      for (Communicator* communicator : {static_cast<Communicator*>(nccl.get()), &threads})
        for (const DType out : {DType::f32, type}) {
          recvs.push_back(test::filled(out, count, 7));
          const std::array<Transfer, 1> flats = {{{send.view(), recvs.back().view()}}};
          communicator
              ->reduce_scatter(flats, {.accumulate = true,
                                       .round_to_bf16 = out == DType::f32,
                                       .sum_of_squares = {&squares[next++], 1}})
              .wait();
        }
      for (std::size_t i : {0, 1}) {
        CHECK(test::same_bits(recvs[i].view(), recvs[i + 2].view()));
        CHECK(squares[i] == squares[i + 2]);
      }
      Flat copy = test::filled(type, 3 * count, seed);
      nccl->all_reduce(send.view(), "a", {}).wait();
      threads.all_reduce(copy.view()).wait();
      CHECK(test::same_bits(send.view(), copy.view()));
    });
  }
}

TEST_CASE("nccl: a joined stream goes on after the collective, its host before") {
  launch_threads(2, [](Communicator& threads) {
    const auto nccl = connect(threads, fake_place());
    Flat values = test::filled(DType::i32, 4, 1);
    Flat seen(DType::i32, 4);
    std::promise<void> gate;
    const Stream before;
    const Stream after;
    StreamRef(before).enqueue([&] {
      gate.get_future().wait();
      for (int i = 0; i < 4; ++i) values.set(i, i);
    });
    Work work = nccl->all_reduce(values.view(), "late", before);
    work.join(after);
    StreamRef(after).enqueue([&] {
      for (int i = 0; i < 4; ++i) seen.set(i, values.get(i));
    });
    CHECK_FALSE(work.done());
    gate.set_value();
    StreamRef(after).synchronize();
    for (int i = 0; i < 4; ++i) CHECK(seen.get(i) == 2 * i);
    work.wait();
  });
}

}  // namespace ashlar
