// One block of threads: a fiber per lane, warps that run until they block, and what lanes meet at.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <source_location>
#include <string>
#include <string_view>
#include <vector>

#include "ashlar/error.hpp"
#include "emulator/fiber.hpp"
#include "emulator/memory_map.hpp"
#include "emulator/order.hpp"
#include "emulator/shared_memory.hpp"
#include "emulator/vectors.hpp"

namespace emulator {

/// A kernel did what a GPU would answer with wrong results, a fault or a hang. The message names
/// the line, the thread and the order.
class KernelError : public ashlar::Error {
 public:
  using Error::Error;
};

inline constexpr unsigned kWarpLanes = 32;
using Site = std::source_location;

struct Launch {
  dim3 grid;
  dim3 block;
  std::size_t shared_bytes;
  Site site;
  Order order;
  std::function<void()> kernel;  // as one thread calls it
};

class Block;

struct Lane {
  enum class State : std::uint8_t { ready, in_warp, in_block, over };

  Block* block = nullptr;
  unsigned number = 0;  // in its block
  uint3 index = {};
  State state = State::over;
  std::string_view call = {};  // what it waits in, and where
  Site site = {};
  unsigned mask = 0;
  std::uint64_t value = 0;
  Fiber fiber = {};
};

class Block {
 public:
  explicit Block(const Launch& launch);

  /// @throws KernelError, or what the kernel threw.
  void run(uint3 index, Shuffler& shuffler);

  /// The block that the calling fiber belongs to.
  static Block& current();

  // On a lane.
  /// Waits for the lanes of `mask`; gives what each lane of the warp brought.
  const std::uint64_t* meet_warp(std::string_view call, unsigned mask, std::uint64_t value,
                                 Site site);
  /// Waits for the whole block; gives the number of lanes that brought true.
  unsigned meet_block(std::string_view call, bool value, Site site);
  unsigned lane_in_warp() const { return lane_->number % kWarpLanes; }
  unsigned threads() const { return static_cast<unsigned>(lanes_.size()); }
  SharedMemory& shared() { return shared_; }
  void* dynamic_shared();
  /// @throws KernelError unless `bytes` there are aligned to as many and inside their buffer.
  void check_access(const void* at, std::size_t bytes, std::string_view call) const;
  [[noreturn]] void fail(std::string_view why) const;
  /// The lane touched memory that is not there; never returns to it.
  [[noreturn]] void fault(const void* address);
  bool on_lane() const { return lane_ != nullptr; }

 private:
  static void run_lane(void* lane);
  void start();
  void run_warp(unsigned warp, Shuffler& shuffler);
  void resume(Lane& lane);
  bool release_groups(unsigned begin, unsigned end);
  bool group_is_complete(const Lane& lane, unsigned begin) const;
  [[noreturn]] void report_stuck(unsigned begin, unsigned end) const;
  bool release_barrier();
  std::string describe(const Lane& lane) const;
  [[noreturn]] void fail(const Lane& lane, std::string_view why) const;

  const Launch& launch_;
  Stacks stacks_;
  std::vector<Lane> lanes_;
  std::vector<std::uint64_t> brought_;  // by lane, of the last group that it was in
  SharedMemory shared_;
  std::vector<Region> regions_;
  void* dynamic_ = nullptr;
  Lane* lane_ = nullptr;  // the one that runs
  uint3 index_ = {};
  unsigned trues_ = 0;
  std::exception_ptr error_;
  const void* fault_ = nullptr;
  bool faulted_ = false;
};

/// Runs every block of the launch. @throws KernelError, or what the kernel threw.
void run_grid(const Launch& launch);

}  // namespace emulator

inline constinit thread_local uint3 threadIdx{};
inline constinit thread_local uint3 blockIdx{};
inline constinit thread_local dim3 blockDim{};
inline constinit thread_local dim3 gridDim{};
inline constexpr int warpSize = 32;
