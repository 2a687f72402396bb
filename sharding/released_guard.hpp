// Catches who touches a gathered parameter after its lease has ended: pages of their own, without
// access once they are given back, and a signal handler that names the parameter.
#pragma once

#include <cstdint>
#include <deque>

#include "ashlar/memory_resource.hpp"
#include "ashlar/sharding.hpp"

namespace ashlar {

/// Host memory whose freed blocks keep their addresses, without pages behind them, until the last
/// kQuarantined blocks were freed after them. The first one made installs a handler of SIGSEGV for
/// the whole process, which passes on what is not its own. One thread at a time.
class ReleasedGuard final : public MemoryResource {
 public:
  static constexpr std::size_t kQuarantined = 4096;

  ReleasedGuard();
  ~ReleasedGuard() override;
  ReleasedGuard(const ReleasedGuard&) = delete;
  ReleasedGuard& operator=(const ReleasedGuard&) = delete;

  /// What a live block at `begin` holds; the layout outlives the guard.
  void describe(const std::byte* begin, const FlatLayout& layout, const Flat& flat);
  std::int64_t peak_live_bytes() const { return peak_; }

  struct Block {
    std::byte* begin = nullptr;
    std::int64_t bytes = 0;
    const FlatLayout* layout = nullptr;
    const Flat* flat = nullptr;
  };

 private:
  void* do_allocate(std::int64_t bytes, Category category, StreamRef stream) override;
  void do_deallocate(void* pointer, std::int64_t bytes, Category category,
                     StreamRef stream) noexcept override;

  std::deque<Block> live_, freed_;
  std::int64_t held_ = 0, peak_ = 0;
};

}  // namespace ashlar
