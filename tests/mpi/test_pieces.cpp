// Messages longer than one MPI message: all that holds on a communicator, in small pieces,
// and, marked as large, one broadcast and one message whose counts need more than 31 bits.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <cstdint>
#include <numeric>

#include "ashlar/buffer.hpp"
#include "comm/conformance.hpp"
#include "comm/group_communicator.hpp"
#include "comm/mpi_transport.hpp"

namespace ashlar {
namespace {

std::shared_ptr<detail::MpiSession> session;

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
  static std::vector<int> everybody() {
    std::vector<int> members(static_cast<std::size_t>(session->size()));
    std::iota(members.begin(), members.end(), 0);
    return members;
  }
  detail::GroupCommunicator communicator_;
};

/// Differs between any two places that are a power of two apart.
std::uint8_t byte_at(std::int64_t i) {
  return static_cast<std::uint8_t>((static_cast<std::uint64_t>(i) * 0x9e3779b97f4a7c15U) >> 56);
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

}  // namespace ashlar

int main(int argc, char** argv) {
  ashlar::session = std::make_shared<ashlar::detail::MpiSession>();
  const int result = doctest::Context(argc, argv).run();
  ashlar::session.reset();
  return result;
}
