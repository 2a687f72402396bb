// One operation of a communicator on its way from the call to the communication thread and back.
// Operations are recycled, so that a steady state allocates nothing.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "ashlar/communicator.hpp"
#include "comm/doorbell.hpp"

namespace ashlar::detail {

enum class Kind : std::uint8_t {
  all_gather,
  reduce_scatter,
  all_reduce,
  broadcast,
  all_to_all,
  send,
  recv,
  barrier,
  leave,
};
std::string_view name_of(Kind kind);
Traffic traffic_of(Kind kind);
inline bool between_two(Kind kind) { return kind == Kind::send || kind == Kind::recv; }

/// A label's first bytes, always terminated.
class Label {
 public:
  static constexpr std::size_t kCapacity = 64;
  Label() = default;
  explicit Label(std::string_view text);
  std::string_view text() const { return text_.data(); }

 private:
  std::array<char, kCapacity> text_{};
};

/// One flat. `count` is in elements: a rank's part for all_gather, reduce_scatter and all_to_all,
/// everything for the others.
struct Flat {
  std::byte* send;
  std::byte* recv;
  std::int64_t count;
  DType send_type;
  DType recv_type;
};

/// What ranks must agree on; it travels between processes as it is.
struct Header {
  Kind kind = Kind::barrier;
  DType dtype = DType::u8;
  std::int32_t flats = 0;
  std::int32_t peer = -1;  // root, destination or source
  std::int64_t sequence = 0;
  std::int64_t count = 0;
  std::uint64_t digest = 0;  // of all counts and types
  Label label;

  bool agrees_with(const Header& other) const;
};
/// "reduce_scatter h.3 589824 x bf16".
std::string describe(const Header& header);
/// Why a collective cannot go on when rank 0 called one thing and `rank` another.
std::string diverged(const Header& first, int rank, const Header& other);

/// What a receiver checks before it takes a message.
/// @throws CommunicationError naming both sides when they differ in size or type.
void require_same_message(const Header& receive, const Header& send, int source);

/// What carries a communicator's operations out, one thread at a time: its own, or a caller that
/// would only wait. That saves the caller two changes of threads.
struct Service {
  std::mutex mutex;
  std::function<bool()> run_queued;  // true when there was something; empty: it has closed
};

struct Operation final : Work::State {
  /// Runs what is queued up to this operation if nobody does, else sleeps until it is done.
  void wait() override;
  bool done() const override { return status.load(std::memory_order_acquire) != Status::pending; }
  /// Called once, by whoever ran it. An empty message means success.
  void finish(std::string message);
  /// Fills the header from the flats.
  void seal(Kind kind, std::int64_t sequence, std::string_view label, int peer);
  void help();

  enum class Status : std::uint32_t { pending, done, failed };

  Header header;
  std::vector<Flat> flats;
  ReduceOptions options;
  Event ready;
  std::shared_ptr<Service> service;
  bool announced = true;  // to the communicator's thread; else the caller who waits runs it

  std::atomic<Status> status{Status::pending};
  std::string error;
  Doorbell bell;
  std::size_t record = 0;  // index in the flight recorder
  std::int64_t progress = 0;
  std::chrono::steady_clock::time_point started{};
};

/// Hands out operations and takes them back when the last reference goes, from any thread; shared
/// by them all, so that a Work may outlive its communicator.
class OperationPool : public std::enable_shared_from_this<OperationPool> {
 public:
  /// A pool that holds as many operations, of as many flats, as a training step has in flight.
  static std::shared_ptr<OperationPool> make();
  std::shared_ptr<Operation> take();

 private:
  static constexpr int kOperations = 16;
  static constexpr std::size_t kFlats = 64;

  template <typename T>
  struct Allocator;
  void give_back(Operation* operation) noexcept;
  void* take_block(std::size_t bytes);
  void give_back_block(void* block) noexcept;

  std::mutex mutex_;
  std::vector<std::unique_ptr<Operation>> operations_;
  std::vector<std::unique_ptr<std::byte[]>> blocks_;  // of shared_ptr's bookkeeping
};

}  // namespace ashlar::detail
