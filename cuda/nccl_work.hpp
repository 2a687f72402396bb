// One collective or message on its way through NCCL.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "ashlar/communicator.hpp"
#include "cuda/nccl_group.hpp"

namespace ashlar::cuda {

class NcclWork final : public Work::State {
 public:
  /// @param ready the work before it on the caller's stream
  /// @param replayed with others, of which none is seen to begin or to end
  NcclWork(std::shared_ptr<NcclHealth> health, const detail::Header& header, Event ready,
           bool replayed = false);

  const Event& ready() const { return ready_; }
  /// It is on a stream and ends with `finished`.
  void issued(std::shared_ptr<NcclGroup> group, Event finished);
  /// Ends it, and the communicator with it.
  void fail(std::string_view trouble) noexcept;

  void wait() override;
  bool done() const override;
  void join(StreamRef stream) override;

 private:
  using Clock = std::chrono::steady_clock;
  enum class Status : std::uint8_t { queued, issued, done, failed };

  /// Sees to an issued work: done, failed, late?
  void look(std::optional<Clock::time_point>& begun);
  void finish() const;
  void throw_failure() const;
  /// After an abort: until the stream has passed, so that nothing touches the buffers any more.
  void drain() const;

  std::shared_ptr<NcclHealth> health_;
  detail::Header header_;
  std::size_t record_;
  Event ready_;
  bool replayed_;
  std::shared_ptr<NcclGroup> group_;
  Event finished_;
  mutable std::mutex mutex_;  // of how it ends
  bool failing_ = false;
  mutable std::atomic<Status> status_ = Status::queued;
  std::string error_;
};

}  // namespace ashlar::cuda
