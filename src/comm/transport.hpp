// What a communicator stands on: it moves the data of one collective at a time and knows how the
// other ranks are. All but the bells and fail() belong to the communication thread.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "ashlar/communicator.hpp"
#include "comm/doorbell.hpp"
#include "comm/operation.hpp"

namespace ashlar::detail {

class Waiter;

/// Gives every rank of the parent's group this rank's text and returns all of theirs. Collective.
using Exchange = std::function<std::vector<std::string>(const std::string&)>;

class Transport {
 public:
  virtual ~Transport() = default;
  Transport(const Transport&) = delete;
  Transport& operator=(const Transport&) = delete;

  int rank() const { return rank_; }
  int size() const { return size_; }
  virtual std::string_view name() const = 0;
  virtual bool same_node(int rank) const = 0;

  /// Runs one collective to its end. @throws CommunicationError.
  virtual void run(Operation& operation, Waiter& waiter) = 0;
  /// Moves a send or recv on without blocking. @return whether it is complete.
  virtual bool advance(Operation& operation) = 0;

  /// Wakes the communication thread: rung by the communicator's queue, messages and failures.
  virtual Doorbell& bell() = 0;
  /// Wakes whoever runs a collective and waits for peers: rung by peers that arrive, messages and
  /// failures. Apart from bell(), so that a caller's own collectives leave the thread asleep.
  virtual Doorbell& meeting() = 0;
  /// How long the thread may sleep although nobody rings, while a collective waits for peers or
  /// messages are pending.
  virtual std::chrono::microseconds longest_sleep(bool waiting, bool messages_pending) const = 0;
  /// Why the group has failed, once some rank has called fail.
  virtual std::optional<std::string> failure() = 0;
  /// Why `rank` will never arrive: it has died or left.
  virtual std::optional<std::string> absence(int rank) = 0;
  virtual void fail(std::string_view reason) noexcept = 0;
  /// After a failure: returns once no peer reads this rank's buffers.
  virtual void settle() noexcept = 0;
  /// This rank takes part in nothing more.
  virtual void leave() noexcept = 0;

  virtual MemoryResource& window() = 0;
  virtual SentBytes sent_bytes() const = 0;
  /// A transport for `members` (ranks of this one, in their new order, this one among them).
  virtual std::unique_ptr<Transport> split(std::span<const int> members,
                                           const Exchange& exchange) = 0;

 protected:
  Transport(int rank, int size) : rank_(rank), size_(size) {}

 private:
  int rank_;
  int size_;
};

}  // namespace ashlar::detail
