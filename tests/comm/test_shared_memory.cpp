#include <doctest/doctest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <span>

#include "ashlar/buffer.hpp"
#include "comm/shared_memory.hpp"

namespace ashlar {
namespace {

constexpr std::int64_t kHugePage = std::int64_t{2} << 20;

std::span<const std::byte> bytes_of(const Buffer& buffer) {
  return {buffer.data(), static_cast<std::size_t>(buffer.bytes())};
}

bool holds(std::span<const std::byte> bytes, int value) {
  return std::ranges::all_of(bytes,
                             [&](std::byte b) { return b == static_cast<std::byte>(value); });
}

void fill(const Buffer& buffer, int value) {
  std::fill_n(buffer.data(), buffer.bytes(), static_cast<std::byte>(value));
}

}  // namespace

TEST_CASE("shared memory: neighbours around huge pages keep their bytes, new ones are zero") {
  const auto memory = detail::SharedMemory::make("test", std::int64_t{64} << 20);
  CHECK(reinterpret_cast<std::uintptr_t>(memory.data()) % kHugePage == 0);
  const auto peer = detail::SharedMemory::open(::getpid(), memory.descriptor(), memory.bytes());
  CHECK(reinterpret_cast<std::uintptr_t>(peer.data()) % kHugePage == 0);
  detail::SharedResource window(memory, std::int64_t{4} << 20);

  const Buffer first(window, 3 * kHugePage / 2, Category::parameter);
  fill(first, 1);
  for (int turn = 0; turn < 3; ++turn) {
    CAPTURE(turn);
    const Buffer middle(window, 5 * kHugePage + 4096 + 1, Category::gradient);
    const Buffer last(window, kHugePage + 64, Category::parameter);
    CHECK(holds(bytes_of(middle), 0));
    CHECK(holds(bytes_of(last), 0));
    fill(middle, 2);
    fill(last, 3);
    CHECK(holds(bytes_of(first), 1));
    CHECK(holds(bytes_of(middle), 2));
    const std::byte* seen = peer.data() + (middle.data() - memory.data());
    CHECK(holds({seen, static_cast<std::size_t>(middle.bytes())}, 2));
  }
}

}  // namespace ashlar
