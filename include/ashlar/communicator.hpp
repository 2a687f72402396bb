// Ranks and the collectives between them. Sums run in fp32 (fp64 for f64) in rank order and round
// once, so the result depends neither on the transport nor on timing. Collectives are non-blocking
// and return Work.
#pragma once

#include <array>
#include <chrono>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ashlar/device.hpp"
#include "ashlar/error.hpp"
#include "ashlar/memory_resource.hpp"
#include "ashlar/tensor_view.hpp"

namespace ashlar {

/// Handle of a collective in flight. Copyable; copies share the operation. Destruction does not
/// wait.
class Work {
 public:
  /// What a communicator supplies: `wait` blocks until done and throws CommunicationError on
  /// failure.
  struct State {
    virtual ~State() = default;
    virtual void wait() = 0;
    virtual bool done() const = 0;
    /// Orders `stream` after the collective without holding up the caller, where it can.
    virtual void join(StreamRef /*stream*/) { wait(); }
    /// See Work::replayed.
    virtual std::shared_ptr<State> replayed(const Event& /*before*/, const Event& /*after*/) {
      return nullptr;
    }
  };

  Work() = default;  // already complete
  explicit Work(std::shared_ptr<State> state) : state_(std::move(state)) {}
  /// @throws CommunicationError naming the collective, its label and the rank at fault.
  void wait() {
    if (state_) state_->wait();
  }
  bool done() const { return !state_ || state_->done(); }
  /// Later work on `stream` runs after the collective. Communicators of GPUs do not hold up the
  /// caller, and say what went wrong at the next wait(); the others wait here.
  /// @throws as wait().
  void join(StreamRef stream) {
    if (state_) state_->join(stream);
  }
  /// Of a collective that was recorded (Communicator::records): the Work of the one that a launch
  /// of the recording runs, counted and noted as if it had been called. Called once for each
  /// launch. @param before, after points of its stream, around the launch
  Work replayed(const Event& before, const Event& after) const {
    return state_ ? Work(state_->replayed(before, after)) : Work();
  }

 private:
  std::shared_ptr<State> state_;
};

/// One flat of a collective; a call takes several and counts as one operation. Both views are
/// contiguous and stay untouched by the caller until the Work is waited for.
struct Transfer {
  TensorView send;
  TensorView recv;
};

/// The kinds that traffic is counted by.
enum class Traffic : std::uint8_t { all_gather, reduce_scatter, all_reduce, broadcast, other };
inline constexpr int kTrafficKinds = 5;
std::string_view name_of(Traffic kind);

/// Bytes that this rank has sent to other ranks, by kind, counted where they cross.
using SentBytes = std::array<std::int64_t, kTrafficKinds>;

struct ReduceOptions {
  /// Add to what recv holds: recv = round(recv + sum over ranks). Otherwise recv = round(sum over
  /// ranks).
  bool accumulate = false;
  /// The result is rounded to bf16 before it is stored in recv, so that an f32 may hold
  /// bf16-rounded values.
  bool round_to_bf16 = false;
  /// When not empty, one double per transfer: the sum of squares of the stored result, in fp64, in
  /// blocks of kNormBlock elements that are summed in order: it depends on the stored
  /// values alone. Filled when the Work is done.
  std::span<double> sum_of_squares = {};
};
inline constexpr std::int64_t kNormBlock = 4096;

/// A group of ranks. Every rank calls the same collectives in the same order with the same counts
/// and types; calls come from one thread at a time. Collectives start after the work enqueued so
/// far on `stream`; results are valid after Work::wait(). Labels name tensors in messages and in
/// the flight recorder (their first 63 bytes are kept).
///
/// Errors: what is wrong on this rank alone throws InvalidArgument at the call. A rank that dies,
/// aborts, leaves, does not arrive in time or calls something else makes every other rank's
/// Work::wait() throw CommunicationError; the group is then unusable and every later collective
/// throws the first cause. Once wait() has returned or thrown, no rank touches the buffers any
/// more.
class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  /// "self", "threads", "mpi".
  virtual std::string_view name() const = 0;
  /// Whether `rank` runs on this rank's node and can see its processes. Ranks that are threads do.
  virtual bool same_node(int rank) const = 0;

  /// recv (size() x send) = every rank's send, in rank order. In place when send is recv's own
  /// part.
  virtual Work all_gather(std::span<const Transfer> flats, std::string_view label = {},
                          StreamRef stream = {}) = 0;
  /// recv = sum over ranks of the own part of their send (size() x recv elements). The floats f32,
  /// bf16 and f16 mix freely; otherwise recv has send's type. recv may be the own part of send.
  virtual Work reduce_scatter(std::span<const Transfer> flats, const ReduceOptions& options = {},
                              std::string_view label = {}, StreamRef stream = {}) = 0;
  /// In place: the sum over ranks on every rank, the same bits everywhere. A
  /// reduce-scatter, then an all-gather.
  virtual Work all_reduce(TensorView values, std::string_view label = {},
                          StreamRef stream = {}) = 0;
  /// In place: `root`'s values on every rank.
  virtual Work broadcast(TensorView values, int root, std::string_view label = {},
                         StreamRef stream = {}) = 0;
  /// Part r of send (size() parts) arrives as part `rank()` of rank r's recv. send and recv do not
  /// overlap.
  virtual Work all_to_all(TensorView send, TensorView recv, std::string_view label = {},
                          StreamRef stream = {}) = 0;
  /// Messages between two ranks overtake the group's collectives and keep their own order, per pair
  /// and direction. Type and size are the same on both sides.
  virtual Work send(TensorView values, int destination, std::string_view label = {},
                    StreamRef stream = {}) = 0;
  virtual Work recv(TensorView values, int source, std::string_view label = {},
                    StreamRef stream = {}) = 0;
  /// Returns when every rank has arrived.
  virtual void barrier(std::string_view label = {}) = 0;
  /// Ranks with equal `color` form a new communicator, ordered by (key, rank). Collective.
  virtual std::unique_ptr<Communicator> split(int color, int key) = 0;

  /// Memory whose contents peers can read in place, for parameter shards and gradient buckets:
  /// collectives whose send lies in it move each byte once. Others work too, in pieces through a
  /// staging buffer. Give buffers back before the communicator goes. host_memory() where ranks
  /// share an address space or nothing is shared.
  virtual MemoryResource& window() = 0;
  /// Whether collectives called on a stream of the device while it records (a CUDA graph) are
  /// recorded with it. All ranks record and launch the same ones. Nothing runs then: such a Work is
  /// joined by the recording stream, its wait() returns at once, or throws where the group has
  /// failed; each launch has a Work of its own.
  virtual bool records() const { return false; }
  virtual SentBytes sent_bytes() const = 0;
  /// The last operations, oldest first, one line each: "#41 reduce_scatter h.3 589824 x bf16:
  /// done".
  virtual std::vector<std::string> recent() const = 0;

  /// How long a collective waits for the other ranks before it throws (default 60 s).
  virtual void set_timeout(std::chrono::milliseconds timeout) = 0;
  /// While on, callers wait at once for the collectives that they start: no other thread is woken
  /// for them, which takes longer than a small one. One that is not waited for begins when this is
  /// switched off, at the latest. See WaitsAtOnce.
  virtual void set_waits_at_once(bool /*on*/) {}
  /// Marks the group as failed: every rank's pending and later collectives throw CommunicationError
  /// with `reason` and this rank's number. Called by a rank that cannot go on. Never blocks.
  virtual void abort(std::string_view reason) noexcept = 0;

 protected:
  Communicator() = default;
  Communicator(const Communicator&) = default;
  Communicator& operator=(const Communicator&) = default;
};

/// For a part of a caller's code: Communicator::set_waits_at_once.
class [[nodiscard]] WaitsAtOnce {
 public:
  explicit WaitsAtOnce(Communicator& communicator) : communicator_(communicator) {
    communicator_.set_waits_at_once(true);
  }
  ~WaitsAtOnce() { communicator_.set_waits_at_once(false); }
  WaitsAtOnce(const WaitsAtOnce&) = delete;
  WaitsAtOnce& operator=(const WaitsAtOnce&) = delete;

 private:
  Communicator& communicator_;
};

/// The ranks of this program: MPI's under a launcher (MPI is initialised on first use and finalised
/// at exit), else one. ASHLAR_WINDOW=off in the environment makes the ranks of one node exchange
/// messages instead of sharing memory.
Communicator& world();

/// Ends every rank of the program with `code`, dead and stopped ones too. For a rank that has said
/// why it fails.
[[noreturn]] void abort_world(int code);

/// A communicator of one rank.
std::unique_ptr<Communicator> self_communicator();

/// Runs `body` on `ranks` threads of this process, each with its own Communicator of the same
/// group, and joins them. When a rank throws, the group is aborted and the first rank's own error
/// is rethrown here.
void launch_threads(int ranks, const std::function<void(Communicator&)>& body);

/// Compares `entries` (one line per scheduled operation, flag, ...) over the ranks. Collective.
/// @throws InvalidArgument on every rank, with the same message: the first entry that differs and
/// what ranks say.
void require_agreement(Communicator& communicator, std::string_view what,
                       std::span<const std::string> entries);

/// Runs `check` on every rank; if it throws on any, all throw the lowest failing rank's class (a
/// bad_alloc as OutOfMemory, a stranger as Error) and text; also a CollectiveFailure. Collective.
void collectively(Communicator& communicator, const std::function<void()>& check);

}  // namespace ashlar
