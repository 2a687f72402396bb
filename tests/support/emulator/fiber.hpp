// One stack that runs beside the thread's own. AddressSanitizer is told of every switch, so that
// throwing on a fiber works under it.
#pragma once

#include <boost/context/detail/fcontext.hpp>
#include <cstddef>
#include <span>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif

namespace emulator {

namespace detail {

/// Before a switch to `stack`. `fake` keeps what the sanitizer knows of this one; null: it ends.
inline void announce([[maybe_unused]] void** fake, [[maybe_unused]] const void* stack,
                     [[maybe_unused]] std::size_t bytes) {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_start_switch_fiber(fake, stack, bytes);
#endif
}

/// After a switch; gives the stack that was left.
inline void arrive([[maybe_unused]] void* fake, [[maybe_unused]] const void** left,
                   [[maybe_unused]] std::size_t* bytes) {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(fake, left, bytes);
#endif
}

}  // namespace detail

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
  /// Runs the fiber until it suspends or its body returns.
  void resume() {
    void* fake = nullptr;
    detail::announce(&fake, stack_.data(), stack_.size());
    self_ = boost::context::detail::jump_fcontext(self_, this).fctx;
    detail::arrive(fake, nullptr, nullptr);
  }
  /// Called on the fiber: back to where resume() was called.
  void suspend() {
    void* fake = nullptr;
    detail::announce(&fake, caller_stack_, caller_bytes_);
    caller_ = boost::context::detail::jump_fcontext(caller_, nullptr).fctx;
    detail::arrive(fake, &caller_stack_, &caller_bytes_);
  }
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
};

}  // namespace emulator
