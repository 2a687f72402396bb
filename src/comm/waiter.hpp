// How a communication thread waits for other ranks: it polls briefly, then sleeps until rung, and
// gives up with a message that names the operation and the ranks at fault.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <string>
#include <string_view>

#include "comm/transport.hpp"
#include "runtime/spin.hpp"

namespace ashlar::detail {

class Waiter {
 public:
  using Clock = std::chrono::steady_clock;

  /// `progress` moves pending messages on and says whether any is left.
  Waiter(Transport& transport, std::function<bool()> progress)
      : transport_(transport), progress_(std::move(progress)) {}

  void set_timeout(std::chrono::milliseconds timeout) { timeout_ms_.store(timeout.count()); }
  std::chrono::milliseconds timeout() const {
    return std::chrono::milliseconds(timeout_ms_.load());
  }
  /// How long to poll for peers before sleeping: a caller with nothing else to do loses nothing by
  /// it while every rank of the node has a core.
  void set_patience(int patience) { patience_ = patience; }
  void begin(const Operation& operation) {
    operation_ = &operation;
    begun_ = Clock::now();
  }

  /// Returns when `ready()`. `missing(rank)` tells whose turn it is while it is not.
  /// @throws CommunicationError when the group fails, a missing rank is gone, or time is up.
  template <typename Ready, typename Missing>
  void until(const Ready& ready, const Missing& missing) {
    if (spin_until(ready, patience_)) return;
    while (true) {
      const std::uint32_t heard = transport_.meeting().listen();
      const bool pending = progress_();
      if (ready()) return;
      std::string trouble = find_trouble(missing);
      if (!trouble.empty() && ready()) return;
      if (!trouble.empty()) fail(trouble);
      transport_.meeting().sleep(heard, transport_.longest_sleep(true, pending));
    }
  }
  /// What keeps a pending send or recv from ever completing, if anything.
  std::string trouble_between(const Operation& message);
  /// Waits for this rank's own stream, without a limit of time.
  void until_ready(const Event& event);

  /// @throws CommunicationError: "all_gather h.3 589824 x bf16 (#41) on rank 0: trouble".
  [[noreturn]] void fail(std::string_view trouble) const;
  static std::string message(const Operation& operation, int rank, std::string_view trouble);

 private:
  template <typename Missing>
  std::string find_trouble(const Missing& missing) {
    if (auto failure = transport_.failure()) return *failure;
    for (int r = 0; r < transport_.size(); ++r)
      if (r != transport_.rank() && missing(r))
        if (auto absence = transport_.absence(r)) return *absence;
    if (Clock::now() - begun_ < timeout()) return {};
    std::string late;
    for (int r = 0; r < transport_.size(); ++r)
      if (r != transport_.rank() && missing(r))
        late += (late.empty() ? "" : ", ") + std::to_string(r);
    return describe_timeout(late);
  }
  std::string describe_timeout(const std::string& late) const;

  Transport& transport_;
  std::function<bool()> progress_;
  std::atomic<std::int64_t> timeout_ms_{60'000};
  const Operation* operation_ = nullptr;
  Clock::time_point begun_{};
  int patience_ = 1;
};

}  // namespace ashlar::detail
