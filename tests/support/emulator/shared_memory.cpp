#include "emulator/shared_memory.hpp"

#include <algorithm>
#include <stdexcept>

#include "cuda/launch.hpp"

namespace emulator {
namespace {

constexpr std::size_t kGap = 64;
constexpr std::size_t kCapacity = 2 * ashlar::cuda::kLargestSharedBytes;  // with the gaps
constinit thread_local std::uint64_t blocks_begun = 0;

}  // namespace

SharedMemory::SharedMemory(Order order) : memory_(kCapacity), paint_(paint_of(order)) {}

void SharedMemory::begin_block() {
  top_ = used_ = 0;
  gaps_.clear();
  serial_ = ++blocks_begun;
}

void* SharedMemory::allocate(std::size_t bytes) {
  const std::size_t rounded = (bytes + 15) / 16 * 16;
  used_ += rounded;
  if (used_ > ashlar::cuda::kLargestSharedBytes || top_ + rounded + kGap > kCapacity)
    throw std::length_error("a block uses more than 227 KiB of shared memory");
  std::byte* at = memory_.data() + top_;
  gaps_.push_back({at + bytes, at + rounded + kGap});
  std::fill_n(at, bytes, std::byte{0xff});
  std::fill(gaps_.back().begin, gaps_.back().end, paint_);
  top_ += rounded + kGap;
  return at;
}

bool SharedMemory::damaged() const {
  return !std::ranges::all_of(gaps_, [this](const Gap& gap) {
    return std::all_of(gap.begin, gap.end, [this](std::byte b) { return b == paint_; });
  });
}

}  // namespace emulator
