// Which stream may reuse what: every free gets the next ticket of its stream, and tickets are
// compared with what is known to be done and with what a stream was ordered after.
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "ashlar/caching_resource.hpp"
#include "memory/caching/block.hpp"

namespace ashlar::detail {

/// Events are recorded late, when another stream asks, except by `mark`: a program on one stream
/// records none.
class StreamTable {
 public:
  explicit StreamTable(PageSource& source) : source_(source) {}
  ~StreamTable();
  StreamTable(const StreamTable&) = delete;
  StreamTable& operator=(const StreamTable&) = delete;

  std::uint32_t size() const { return static_cast<std::uint32_t>(streams_.size()); }
  StreamRef ref(std::uint32_t stream) const { return streams_[stream].ref; }
  /// The number of a stream, given out at first sight.
  std::uint32_t index_of(StreamRef ref) {
    for (std::uint32_t i = 0; i < size(); ++i)
      if (streams_[i].ref.id() == ref.id()) return i;
    return add(ref);
  }

  /// A point after all that is enqueued on `stream` now and what it was ordered after so far.
  std::uint64_t next_ticket(std::uint32_t stream) noexcept {
    Stream& s = streams_[stream];
    ++s.ticket;
    if (s.ref.is_inline()) s.completed = s.ticket;
    return s.ticket;
  }
  bool complete(const Block& block) const noexcept {
    return block.ticket <= streams_[block.stream].completed;
  }
  /// Whether work enqueued on `stream` from now on comes after the last use of a free block.
  bool usable(const Block& block, std::uint32_t stream) const noexcept {
    return block.stream == stream || complete(block) ||
           block.ticket <= streams_[stream].after[block.stream];
  }

  /// Records an event now, so that who asks later for what `stream` has freed waits for no more
  /// than that. Does nothing when the source fails: the event is then recorded at need.
  void mark(std::uint32_t stream) noexcept;
  /// Orders `stream` after the last use of `block`. @throws what the source throws.
  void order(std::uint32_t stream, const Block& block);
  /// Asks the events that are pending on other streams than `stream`; records one where frees are
  /// newer.
  void poll_others(std::uint32_t stream);
  void poll_all() { poll_others(size()); }
  /// Waits until everything freed so far is done.
  void wait_all();
  void retire(std::uint32_t stream) noexcept;

  std::int64_t events() const { return events_; }
  std::int64_t orderings() const { return orderings_; }

 private:
  struct Pending {
    std::uint64_t ticket;
    PageSource::EventId event;
  };
  struct Stream {
    StreamRef ref;
    std::uint64_t ticket = 0;          // of the last free
    std::uint64_t completed = 0;       // frees up to this are done
    std::uint64_t recorded = 0;        // frees up to this have an event
    std::vector<std::uint64_t> after;  // per stream: the ticket that this one is ordered after
    std::deque<Pending> pending;       // ascending tickets
  };

  std::uint32_t add(StreamRef ref);
  void record(Stream& stream);
  void poll(Stream& stream) noexcept;

  PageSource& source_;
  std::vector<Stream> streams_;
  std::int64_t events_ = 0;
  std::int64_t orderings_ = 0;
};

}  // namespace ashlar::detail
