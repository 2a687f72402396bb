// One stack that runs beside the thread's own. AddressSanitizer is told of every switch, so that
// throwing on a fiber works under it.
#pragma once

#include <boost/context/detail/fcontext.hpp>
#include <cstddef>
#include <span>

namespace emulator {

/// Stacks for `count` fibers in one mapping, whose pages are taken when touched. Their tops are
/// staggered, or all would meet in the same few sets of the caches.
class Stacks {
 public:
  static constexpr std::size_t kBytes = 256 << 10;

  explicit Stacks(std::size_t count);
  ~Stacks();
  Stacks(const Stacks&) = delete;
  Stacks& operator=(const Stacks&) = delete;
  std::span<std::byte> operator[](std::size_t i) const {
    return {begin_ + i * kBytes, kBytes - i % 128 * 448};
  }

 private:
  std::byte* begin_;
  std::size_t bytes_;
};

class Fiber {
 public:
  using Body = void (*)(void*);

  /// `body(argument)` runs on `stack` from the first resume() on. It must not throw.
  void start(std::span<std::byte> stack, Body body, void* argument);
  /// Runs the fiber until it suspends; true while its body has not returned.
  bool resume();
  /// Called on the fiber: back to where resume() was called.
  void suspend();
  /// Called on the fiber, which is never resumed again.
  [[noreturn]] void abandon();

 private:
  static void enter(boost::context::detail::transfer_t transfer);

  boost::context::detail::fcontext_t self_ = nullptr;
  boost::context::detail::fcontext_t caller_ = nullptr;
  std::span<std::byte> stack_;
  const void* caller_stack_ = nullptr;
  std::size_t caller_bytes_ = 0;
  Body body_ = nullptr;
  void* argument_ = nullptr;
  bool over_ = true;
};

}  // namespace emulator
