// Collectives between ranks that can read each other's memory, as threads of one process or through
// shared windows: a rank posts where its sends lie, everybody meets, each reads what it needs from
// its peers in one pass, everybody meets again. What peers cannot read goes through a staging area.
#pragma once

#include <algorithm>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "comm/board.hpp"
#include "comm/pass.hpp"
#include "comm/transport.hpp"

namespace ashlar::detail {

/// How ranks name memory to each other.
class AddressSpace {
 public:
  static constexpr std::int64_t kPrivate = -1;

  virtual ~AddressSpace() = default;
  virtual std::string_view name() const = 0;
  virtual Board& board() = 0;
  /// What peers pass to resolve; kPrivate when they cannot read it.
  virtual std::int64_t publish(const std::byte* pointer, std::int64_t bytes) const = 0;
  virtual const std::byte* resolve(int rank, std::int64_t address) const = 0;
  /// A rank's staging area of stage_bytes(), where publish can give kPrivate.
  virtual std::byte* stage(int rank) const = 0;
  /// Whether a rank's buffers vanish from its peers' sight when it frees them.
  virtual bool buffers_vanish() const = 0;
  virtual bool dead(int rank) = 0;
  virtual MemoryResource& window() = 0;
  virtual bool advance(Operation& operation) = 0;
  virtual bool must_poll_messages() const = 0;
  virtual std::unique_ptr<Transport> split(std::span<const int> members,
                                           const Exchange& exchange) = 0;
};

/// Two halves, each with room for a block per rank.
constexpr std::int64_t stage_bytes(int size) {
  return std::max(std::int64_t{4} << 20, size * 2 * kNormBlock * 8);
}

class NodeTransport final : public Transport {
 public:
  NodeTransport(int rank, int size, std::unique_ptr<AddressSpace> space);

  std::string_view name() const override { return space_->name(); }
  bool same_node(int) const override { return true; }
  void run(Operation& operation, Waiter& waiter) override;
  bool advance(Operation& operation) override { return space_->advance(operation); }
  Doorbell& bell() override { return board_.slot(rank()).bell; }
  Doorbell& meeting() override { return board_.slot(rank()).meeting; }
  std::chrono::microseconds longest_sleep(bool waiting, bool messages_pending) const override;
  std::optional<std::string> failure() override;
  std::optional<std::string> absence(int rank) override;
  void fail(std::string_view reason) noexcept override;
  void settle() noexcept override;
  void leave() noexcept override;
  MemoryResource& window() override { return space_->window(); }
  SentBytes sent_bytes() const override;
  std::unique_ptr<Transport> split(std::span<const int> members,
                                   const Exchange& exchange) override {
    return space_->split(members, exchange);
  }

 private:
  void meet(Waiter& waiter);
  void require_same_operation(const Waiter& waiter);
  void post(const Operation& operation, std::size_t first, std::size_t last);
  bool everything_readable(const Operation& operation, std::size_t flats);
  void move_direct(const Pass& pass, std::size_t posted);
  void move_staged(const Pass& pass, Waiter& waiter);
  void fill_stage(const Pass& pass, Range chunk, std::int64_t stride, std::byte* stage);
  void consume(const Pass& pass, Range chunk);

  std::unique_ptr<AddressSpace> space_;
  Board& board_;
  std::int64_t step_ = 0;
  std::vector<const std::byte*> sources_;  // where each rank's piece begins
};

}  // namespace ashlar::detail
