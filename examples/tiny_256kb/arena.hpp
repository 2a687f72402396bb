// Memory of a fixed size, and a communicator of one rank that lives in it.
#pragma once

#include <fmt/format.h>

#include <cstddef>
#include <span>

#include "ashlar/error.hpp"
#include "comm/forwarding.hpp"

namespace tiny {

/// Serves one block: bytes that somebody else owns, aligned to kAlignment. An ArenaResource divides
/// them.
class BlockResource final : public ashlar::MemoryResource {
 public:
  explicit BlockResource(std::span<std::byte> block) : block_(block) {}

 private:
  void* do_allocate(std::int64_t bytes, ashlar::Category, ashlar::StreamRef) override {
    if (bytes > static_cast<std::int64_t>(block_.size()))
      throw ashlar::OutOfMemory(fmt::format("{} do not fit a block of {}",
                                            ashlar::format_bytes(bytes),
                                            ashlar::format_bytes(std::ssize(block_))));
    return block_.data();
  }
  void do_deallocate(void*, std::int64_t, ashlar::Category, ashlar::StreamRef) noexcept override {}

  std::span<std::byte> block_;
};

/// What peers would read comes from the same memory.
class ArenaCommunicator final : public ashlar::detail::ForwardingCommunicator {
 public:
  ArenaCommunicator(ashlar::Communicator& inner, ashlar::MemoryResource& memory)
      : ForwardingCommunicator(inner), memory_(memory) {}
  ashlar::MemoryResource& window() override { return memory_; }

 private:
  ashlar::MemoryResource& memory_;
};

}  // namespace tiny
