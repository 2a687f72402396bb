#include "emulator/shared_memory.hpp"

#include <algorithm>
#include <stdexcept>

#include "cuda/launch.hpp"

namespace emulator {
namespace {

constexpr std::size_t kGap = 64;
constexpr std::size_t kMostArrays = 64;
constinit thread_local std::uint64_t blocks_begun = 0;

constexpr std::size_t round_up(std::size_t bytes) { return (bytes + 15) / 16 * 16; }

}  // namespace

SharedMemory::SharedMemory(std::size_t dynamic_bytes, Order order)
    : dynamic_bytes_(dynamic_bytes),
      memory_(round_up(dynamic_bytes) + ashlar::cuda::kStaticSharedBytes +
              (kMostArrays + 1) * kGap),
      paint_(paint_of(order)) {}

void* SharedMemory::begin_block() {
  top_ = static_bytes_ = 0;
  gaps_.clear();
  serial_ = ++blocks_begun;
  return dynamic_bytes_ > 0 ? place(dynamic_bytes_) : nullptr;
}

void* SharedMemory::allocate(std::size_t bytes) {
  static_bytes_ += round_up(bytes);
  if (static_bytes_ > ashlar::cuda::kStaticSharedBytes || gaps_.size() >= kMostArrays)
    throw std::length_error("a kernel uses more than 16 KiB of static shared memory, or 64 arrays");
  return place(bytes);
}

void* SharedMemory::place(std::size_t bytes) {
  std::byte* at = memory_.data() + top_;
  std::byte* next = at + round_up(bytes) + kGap;
  gaps_.push_back({at + bytes, next});
  std::fill(at, at + bytes, std::byte{0xff});
  std::fill(at + bytes, next, paint_);
  top_ = static_cast<std::size_t>(next - memory_.data());
  return at;
}

bool SharedMemory::damaged() const {
  return !std::ranges::all_of(gaps_, [this](const Gap& gap) {
    return std::all_of(gap.begin, gap.end, [this](std::byte b) { return b == paint_; });
  });
}

}  // namespace emulator
