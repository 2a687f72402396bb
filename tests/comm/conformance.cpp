#include "comm/conformance.hpp"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <chrono>
#include <string>
#include <thread>

#include "comm/reduce.hpp"
#include "comm/values.hpp"

namespace ashlar::test {
namespace {

constexpr std::array kTypes = {DType::f32, DType::bf16, DType::f16, DType::f64,
                               DType::i32, DType::i64,  DType::u8};
constexpr std::array<std::int64_t, 9> kCounts = {0, 1, 2, 31, 64, 4096, 4097, 10007, 300007};

DType pick_type(std::mt19937_64& random) { return kTypes[random() % kTypes.size()]; }
std::int64_t pick_count(std::mt19937_64& random) { return kCounts[random() % kCounts.size()]; }
/// Where a rank keeps a flat is its own affair.
MemoryResource& pick_memory(Communicator& communicator, std::uint64_t seed) {
  const bool window = (seed * 0x9e3779b97f4a7c15U >> 40) % 3 != 0;
  return window ? communicator.window() : host_memory();
}
std::uint64_t seed_of(std::uint64_t seed, int rank, std::size_t flat) {
  return seed * 1000 + static_cast<std::uint64_t>(rank) * 50 + flat;
}

std::int64_t sent(Communicator& communicator, Traffic kind) {
  return communicator.sent_bytes()[static_cast<std::size_t>(kind)];
}

}  // namespace

void check_all_gather(Communicator& communicator, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  const int size = communicator.size();
  const int rank = communicator.rank();
  std::vector<Flat> sends;
  std::vector<Flat> recvs;
  std::vector<Transfer> transfers;
  const std::size_t flats = 1 + random() % 3;
  std::int64_t bytes = 0;
  for (std::size_t f = 0; f < flats; ++f) {
    const DType type = pick_type(random);
    const std::int64_t count = pick_count(random);
    const bool in_place = random() % 2 == 0;
    MemoryResource& memory = pick_memory(communicator, seed_of(seed, rank, f));
    sends.push_back(filled(type, count, seed_of(seed, rank, f), memory));
    recvs.emplace_back(type, count * size, memory);
    TensorView send = sends.back().view();
    if (in_place) {
      send = recvs.back().part(rank * count, count);
      std::memcpy(send.data, sends.back().view().data, static_cast<std::size_t>(send.bytes()));
    }
    transfers.push_back({send, recvs.back().view()});
    bytes += send.bytes();
  }
  const std::int64_t before = sent(communicator, Traffic::all_gather);
  communicator.all_gather(transfers, "h.0").wait();
  CHECK(sent(communicator, Traffic::all_gather) - before == bytes * (size - 1));
  for (std::size_t f = 0; f < flats; ++f)
    for (int r = 0; r < size; ++r) {
      const Flat expected = filled(sends[f].dtype(), sends[f].count(), seed_of(seed, r, f));
      CHECK(same_bits(recvs[f].part(r * expected.count(), expected.count()), expected.view()));
    }
}

void check_reduce_scatter(Communicator& communicator, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  const int size = communicator.size();
  const int rank = communicator.rank();
  const std::size_t flats = 1 + random() % 3;
  std::vector<Flat> sends;
  std::vector<Flat> recvs;
  std::vector<Transfer> transfers;
  std::vector<bool> in_place;
  std::int64_t bytes = 0;
  ReduceOptions options{.accumulate = random() % 2 == 0, .round_to_bf16 = random() % 4 == 0};
  std::vector<double> squares(flats, -1.0);
  if (random() % 2 == 0) options.sum_of_squares = squares;
  for (std::size_t f = 0; f < flats; ++f) {
    const DType type = pick_type(random);
    const std::int64_t count = pick_count(random);
    const bool narrow = type == DType::f32 || type == DType::bf16 || type == DType::f16;
    const DType out = narrow ? kTypes[random() % 3] : type;
    in_place.push_back(out == type && !options.accumulate && random() % 2 == 0);
    MemoryResource& memory = pick_memory(communicator, seed_of(seed, rank, f));
    sends.push_back(filled(type, count * size, seed_of(seed, rank, f), memory));
    recvs.push_back(filled(out, count, seed_of(seed, rank + 20, f)));
    const TensorView recv =
        in_place.back() ? sends.back().part(rank * count, count) : recvs.back().view();
    transfers.push_back({sends.back().view(), recv});
    bytes += count * size_of(type);
  }
  const std::int64_t before = sent(communicator, Traffic::reduce_scatter);
  communicator.reduce_scatter(transfers, options, "h.1").wait();
  CHECK(sent(communicator, Traffic::reduce_scatter) - before == bytes * (size - 1));
  for (std::size_t f = 0; f < flats; ++f) {
    std::vector<Flat> all;
    for (int r = 0; r < size; ++r)
      all.push_back(filled(sends[f].dtype(), sends[f].count(), seed_of(seed, r, f)));
    Flat expected = filled(recvs[f].dtype(), recvs[f].count(), seed_of(seed, rank + 20, f));
    long double squares_expected = 0;
    for (std::int64_t i = 0; i < expected.count(); ++i) {
      double sum = sum_at(all, rank * expected.count() + i);
      const bool wide = all[0].dtype() == DType::f64 || !is_float(all[0].dtype());
      if (options.accumulate)
        sum = wide ? expected.get(i) + sum
                   : static_cast<float>(expected.get(i)) + static_cast<float>(sum);
      if (options.round_to_bf16 && !wide) sum = bf16(static_cast<float>(sum));
      expected.set(i, sum);
      squares_expected += static_cast<long double>(expected.get(i)) * expected.get(i);
    }
    CHECK(same_bits(transfers[f].recv, expected.view()));
    if (options.sum_of_squares.empty()) continue;
    if (!is_float(expected.dtype())) squares_expected = 0;
    CHECK(squares[f] == detail::sum_of_squares(expected.view()));
    CHECK(squares[f] == doctest::Approx(static_cast<double>(squares_expected)).epsilon(1e-12));
  }
}

void check_all_reduce(Communicator& communicator, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  const int size = communicator.size();
  const DType type = pick_type(random);
  const std::int64_t count = pick_count(random);
  const int rank = communicator.rank();
  Flat values = filled(type, count, seed_of(seed, rank, 0),
                       pick_memory(communicator, seed_of(seed, rank, 0)));
  const std::int64_t before = sent(communicator, Traffic::all_reduce);
  communicator.all_reduce(values.view(), "norm").wait();
  std::int64_t bytes = sent(communicator, Traffic::all_reduce) - before;
  std::vector<Flat> all;
  for (int r = 0; r < size; ++r) all.push_back(filled(type, count, seed_of(seed, r, 0)));
  Flat expected(type, count);
  for (std::int64_t i = 0; i < count; ++i) expected.set(i, sum_at(all, i));
  CHECK(same_bits(values.view(), expected.view()));
  communicator.all_reduce({&bytes, DType::i64, {1}}).wait();
  CHECK(bytes == 2 * (size - 1) * count * size_of(type));
}

void check_broadcast(Communicator& communicator, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  const DType type = pick_type(random);
  const std::int64_t count = pick_count(random);
  const int root = static_cast<int>(random() % communicator.size());
  const int rank = communicator.rank();
  Flat values = filled(type, count, seed_of(seed, rank, 0),
                       pick_memory(communicator, seed_of(seed, rank, 0)));
  const std::int64_t before = sent(communicator, Traffic::broadcast);
  communicator.broadcast(values.view(), root, "config").wait();
  const std::int64_t copies = rank == root ? communicator.size() - 1 : 0;
  CHECK(sent(communicator, Traffic::broadcast) - before == copies * values.view().bytes());
  CHECK(same_bits(values.view(), filled(type, count, seed_of(seed, root, 0)).view()));
}

void check_all_to_all(Communicator& communicator, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  const int size = communicator.size();
  const int rank = communicator.rank();
  const DType type = pick_type(random);
  const std::int64_t count = pick_count(random);
  const Flat send = filled(type, count * size, seed_of(seed, rank, 0),
                           pick_memory(communicator, seed_of(seed, rank, 0)));
  const Flat recv(type, count * size);
  communicator.all_to_all(send.view(), recv.view(), "tokens").wait();
  for (int r = 0; r < size; ++r) {
    const Flat theirs = filled(type, count * size, seed_of(seed, r, 0));
    CHECK(same_bits(recv.part(r * count, count), theirs.part(rank * count, count)));
  }
}

// Everybody posts every receive or every send first, which only works if neither blocks.
void check_messages(Communicator& communicator, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  const int size = communicator.size();
  const int rank = communicator.rank();
  const bool receive_first = random() % 2 == 0;
  const DType type = pick_type(random);
  constexpr int kRounds = 3;
  std::array<std::int64_t, kRounds> counts{};
  for (std::int64_t& count : counts) count = pick_count(random);
  std::vector<Flat> sends;
  std::vector<Flat> recvs;
  sends.reserve(static_cast<std::size_t>(kRounds * size));
  recvs.reserve(static_cast<std::size_t>(kRounds * size));
  std::vector<Work> works;
  const auto send_all = [&] {
    for (std::size_t round = 0; round < kRounds; ++round)
      for (int r = 0; r < size; ++r) {
        if (r == rank) continue;
        sends.push_back(filled(type, counts[round], seed_of(seed, rank * size + r, round)));
        works.push_back(communicator.send(sends.back().view(), r, "act"));
      }
  };
  const auto recv_all = [&] {
    for (const std::int64_t count : counts)
      for (int r = 0; r < size; ++r) {
        if (r == rank) continue;
        recvs.emplace_back(type, count);
        works.push_back(communicator.recv(recvs.back().view(), r, "act"));
      }
  };
  if (receive_first) recv_all();
  send_all();
  communicator.barrier("between messages");
  if (!receive_first) recv_all();
  for (Work& work : works) work.wait();
  std::size_t next = 0;
  for (std::size_t round = 0; round < kRounds; ++round)
    for (int r = 0; r < size; ++r) {
      if (r == rank) continue;
      const Flat expected = filled(type, counts[round], seed_of(seed, r * size + rank, round));
      CHECK(same_bits(recvs[next++].view(), expected.view()));
    }
}

void check_split(Communicator& communicator) {
  const int rank = communicator.rank();
  const int size = communicator.size();
  const int color = rank % 2;
  const auto group = communicator.split(color, -rank);  // in reverse order
  const int members = (size + 1 - color) / 2;
  REQUIRE(group->size() == members);
  CHECK(group->rank() == members - 1 - rank / 2);
  for (int r = 0; r < size; ++r) CHECK(communicator.same_node(r));  // as tests are started
  for (int r = 0; r < members; ++r) CHECK(group->same_node(r));
  std::int64_t sum = 1 + rank;
  group->all_reduce({&sum, DType::i64, {1}}, "half").wait();
  std::int64_t expected = 0;
  for (int r = color; r < size; r += 2) expected += 1 + r;
  CHECK(sum == expected);
  check_reduce_scatter(*group, 77);
  check_messages(*group, 78);
  const auto alone = group->split(group->rank(), 0);
  CHECK(alone->size() == 1);
  alone->barrier();
}

void check_many_flats(Communicator& communicator) {
  constexpr std::size_t kFlats = 300;  // more than a slot can post at once
  const int size = communicator.size();
  std::vector<Flat> recvs;
  std::vector<Transfer> transfers;
  for (std::size_t f = 0; f < kFlats; ++f) {
    const auto count = static_cast<std::int64_t>(f % 5);
    recvs.emplace_back(DType::f32, count * size);
    const TensorView own = recvs.back().part(communicator.rank() * count, count);
    const Flat mine = filled(DType::f32, count, seed_of(9, communicator.rank(), f));
    std::memcpy(own.data, mine.view().data, static_cast<std::size_t>(own.bytes()));
    transfers.push_back({own, recvs.back().view()});
  }
  communicator.all_gather(transfers, "many").wait();
  bool same = true;
  for (std::size_t f = 0; f < kFlats; ++f)
    for (int r = 0; r < size; ++r) {
      const auto count = static_cast<std::int64_t>(f % 5);
      same = same && same_bits(recvs[f].part(r * count, count),
                               filled(DType::f32, count, seed_of(9, r, f)).view());
    }
  CHECK(same);
}

// The stream fills the buffer late; a collective that does not wait for it sees the pattern.
void check_stream_order(Communicator& communicator) {
  const Stream stream;
  const int size = communicator.size();
  Flat values(DType::i32, 4);
  StreamRef(stream).enqueue([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    for (int i = 0; i < 4; ++i) values.set(i, communicator.rank() + i);
  });
  Work work = communicator.all_reduce(values.view(), "late", stream);
  work.wait();
  CHECK(work.done());
  for (int i = 0; i < 4; ++i) CHECK(values.get(i) == size * (size - 1) / 2 + size * i);
}

/// Unannounced collectives between announced ones; the last is waited for by nobody until it is
/// done.
void check_waits_at_once(Communicator& communicator) {
  std::vector<float> values(100, 0);
  const TensorView view(values.data(), DType::f32, {100});
  const auto sum = [&] { return communicator.all_reduce(view, "sum"); };
  values[7] = 1;
  float expected = 1;
  Work last;
  for (int round = 0; round < 20; ++round) {
    sum().wait();
    const WaitsAtOnce alone(communicator);
    Work first = sum();
    first.wait();
    last = sum();
    if (round < 19) last.wait();
    for (int i = 0; i < 3; ++i) expected *= static_cast<float>(communicator.size());
    if (round < 19 && round % 6 == 5) {
      values[7] = expected = 1;
      communicator.barrier("again");
    }
  }
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (!last.done() && std::chrono::steady_clock::now() < end) std::this_thread::yield();
  CHECK(last.done());
  CHECK(values[7] == expected);
}

void check_conformance(Communicator& communicator) {
  for (std::uint64_t seed = 1; seed <= 12; ++seed) {
    check_all_gather(communicator, seed);
    check_reduce_scatter(communicator, seed);
    check_all_reduce(communicator, seed);
    check_broadcast(communicator, seed);
    check_all_to_all(communicator, seed);
    check_messages(communicator, seed);
  }
  check_split(communicator);
  check_many_flats(communicator);
  check_stream_order(communicator);
  check_waits_at_once(communicator);
  check_agreement(communicator);
  check_bad_arguments(communicator);
  check_recorder(communicator);
}

}  // namespace ashlar::test
