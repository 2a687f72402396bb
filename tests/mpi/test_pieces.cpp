// Messages longer than one MPI message: all that holds on a communicator, in small pieces,
// and, marked as large, one broadcast and one message whose counts need more than 31 bits, and one
// gather and one sum of more than 2^31 bytes over shared windows.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <numeric>
#include <span>

#include "ashlar/buffer.hpp"
#include "comm/conformance.hpp"
#include "comm/group_communicator.hpp"
#include "comm/mpi_transport.hpp"
#include "comm/mpi_window.hpp"

namespace ashlar {
namespace {

std::shared_ptr<detail::MpiSession> session;

std::vector<int> everybody() {
  std::vector<int> members(static_cast<std::size_t>(session->size()));
  std::iota(members.begin(), members.end(), 0);
  return members;
}

/// All ranks of the session, over messages of at most `piece` bytes.
class Group {
 public:
  Group(std::int64_t piece, int context)
      : communicator_(std::make_unique<detail::MpiTransport>(
            session->rank(), detail::MpiGroup(session, everybody(), context, piece))) {}
  ~Group() { CHECK(communicator_.close()); }
  Group(const Group&) = delete;
  Group& operator=(const Group&) = delete;

  Communicator& communicator() { return communicator_; }

 private:
  detail::GroupCommunicator communicator_;
};

/// Differs between any two places that are a power of two apart.
std::uint8_t byte_at(std::int64_t i) {
  return static_cast<std::uint8_t>((static_cast<std::uint64_t>(i) * 0x9e3779b97f4a7c15U) >> 56);
}

/// All ranks of the session, over shared windows.
std::unique_ptr<detail::Transport> shared_windows() {
  session->set_next_context(session->next_context() + 1);
  std::string obstacle;
  auto transport = detail::window_transport(
      session->rank(), detail::MpiGroup(session, everybody(), session->next_context() - 1),
      [](const std::string& text) { return session->exchange(text); }, obstacle);
  REQUIRE_MESSAGE(transport != nullptr, obstacle);
  return transport;
}

/// A whole number that bf16 holds, as it does the sum of two.
float value_at(std::int64_t i, int rank) { return static_cast<float>(byte_at(i) % 64 + 64 * rank); }

/// How many of `all` in [begin, end) differ from `expected`, at both ends of all, at the seam of
/// two ranks' parts and around the 2^31st byte.
template <typename Expected>
std::int64_t count_wrong(std::span<const bf16> all, std::int64_t begin, std::int64_t end,
                         const Expected& expected) {
  const auto count = static_cast<std::int64_t>(all.size());
  std::int64_t wrong = 0;
  for (const std::int64_t place : {std::int64_t{0}, count / 2, std::int64_t{1} << 30, count}) {
    const std::int64_t last = std::min(end, place + 65536);
    for (std::int64_t i = std::max(begin, place - 65536); i < last; ++i)
      wrong += static_cast<float>(all[static_cast<std::size_t>(i)]) == expected(i) ? 0 : 1;
  }
  return wrong;
}

}  // namespace

TEST_CASE("pieces: messages in small pieces conform") {
  for (const std::int64_t piece : {997, 65536}) {
    session->set_next_context(session->next_context() + 1);
    Group group(piece, session->next_context() - 1);
    test::check_conformance(group.communicator());
  }
}

TEST_CASE("large: counts beyond 2^31") {
  constexpr std::int64_t kCount = (std::int64_t{22} << 30) / 10;  // 2.2 GiB
  static_assert(kCount > INT32_MAX);
  session->set_next_context(session->next_context() + 1);
  Group group(detail::kLongestMessage, session->next_context() - 1);
  Communicator& ranks = group.communicator();
  const Buffer buffer(host_memory(), kCount, Category::input);
  auto* const bytes = reinterpret_cast<std::uint8_t*>(buffer.data());
  const TensorView values(bytes, DType::u8, {kCount});
  const auto check_and_clear = [&] {
    std::int64_t wrong = 0;
    for (std::int64_t i = 0; i < kCount; ++i) {
      wrong += bytes[i] == byte_at(i) ? 0 : 1;
      bytes[i] = 0;
    }
    CHECK(wrong == 0);
  };
  if (ranks.rank() == 0)
    for (std::int64_t i = 0; i < kCount; ++i) bytes[i] = byte_at(i);
  ranks.broadcast(values, 0, "large").wait();
  if (ranks.rank() == 1) {
    check_and_clear();
    ranks.recv(values, 0, "large").wait();
    check_and_clear();
  } else if (ranks.rank() == 0) {
    ranks.send(values, 1, "large").wait();
  }
  if (ranks.rank() == 0)
    CHECK(ranks.sent_bytes()[static_cast<std::size_t>(Traffic::broadcast)] ==
          kCount * (ranks.size() - 1));
}

TEST_CASE("large: a gather and a sum of more than 2^31 bytes over shared windows") {
  constexpr std::int64_t kPart = 590'558'003, kCount = 2 * kPart;  // 2.2 GiB of bf16
  static_assert(2 * kCount > INT32_MAX && 2 * (kCount - kPart) < INT32_MAX);
  REQUIRE(session->size() == 2);
  detail::GroupCommunicator group(shared_windows());
  Communicator& ranks = group;
  const int rank = session->rank();
  const std::int64_t begin = rank * kPart, end = begin + kPart;
  {
    REQUIRE(&ranks.window() != &host_memory());
    // Never touched, so without memory: what comes behind it lies beyond 2^31 in the window.
    const Buffer gap(ranks.window(), std::int64_t{1} << 31, Category::communication);
    const Buffer buffer(ranks.window(), 2 * kCount, Category::communication);
    CHECK(buffer.data() - gap.data() > INT32_MAX);
    const TensorView all = buffer.view(DType::bf16, {kCount}), mine = all.flat_slice(begin, kPart);
    const std::span<bf16> values = all.span<bf16>();
    const auto fill = [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t i = first; i < last; ++i)
        values[static_cast<std::size_t>(i)] = bf16(value_at(i, rank));
    };
    fill(begin, end);
    const std::array<Transfer, 1> gather{{{mine, all}}}, sum{{{all, mine}}};
    ranks.all_gather(gather, "large").wait();
    CHECK(count_wrong(values, 0, kCount,
                      [](std::int64_t i) { return value_at(i, i < kPart ? 0 : 1); }) == 0);
    fill(0, kCount);
    ranks.reduce_scatter(sum, {}, "large").wait();
    CHECK(count_wrong(values, begin, end,
                      [](std::int64_t i) { return value_at(i, 0) + value_at(i, 1); }) == 0);
  }
  CHECK(group.close());
}
}  // namespace ashlar

int main(int argc, char** argv) {
  ashlar::session = std::make_shared<ashlar::detail::MpiSession>();
  const int result = doctest::Context(argc, argv).run();
  ashlar::session.reset();
  return result;
}
