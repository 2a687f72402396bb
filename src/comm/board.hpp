// The memory that the ranks of one node share to find each other: plain data, mapped by processes
// or shared by threads. A rank writes its own slot only, except for the bytes that readers count.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

#include "comm/doorbell.hpp"
#include "comm/operation.hpp"

namespace ashlar::detail {

struct alignas(64) Slot {
  /// More flats than this are moved in several batches.
  static constexpr std::size_t kBatch = 128;

  /// For news that any of the rank's threads may be waiting for.
  void ring() {
    bell.ring();
    meeting.ring();
  }

  Doorbell bell;  // see Transport::bell and meeting
  alignas(64) Doorbell meeting;
  alignas(64) std::atomic<std::int64_t> step{0};  // how many meeting points the rank has reached
  std::atomic<std::uint32_t> reading{0};          // it may be looking at a peer's buffers
  std::atomic<std::uint32_t> left{0};
  std::int32_t process = 0;
  alignas(64) std::array<std::atomic<std::int64_t>, kTrafficKinds> sent{};
  Header header;                               // of the operation it is at
  std::array<std::int64_t, kBatch> address{};  // of its sends, see AddressSpace
};

struct Board {
  static std::size_t bytes(int size) {
    return sizeof(Board) + static_cast<std::size_t>(size) * sizeof(Slot);
  }
  Slot& slot(int rank) { return reinterpret_cast<Slot*>(this + 1)[rank]; }

  enum Failure : std::uint32_t { none, being_written, written };
  alignas(64) std::atomic<std::uint32_t> failure{none};
  std::int32_t failed_rank = -1;
  std::array<char, 1024> reason{};
};
static_assert(sizeof(Board) % alignof(Slot) == 0);

}  // namespace ashlar::detail
