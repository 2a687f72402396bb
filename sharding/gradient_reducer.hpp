// Gradients of a model that Ashlar did not trace, on their way: collected by flat, sent in buckets
// of whole units, summed into the rank's own shard.
#pragma once

#include <chrono>
#include <deque>
#include <optional>
#include <vector>

#include "ashlar/buffer.hpp"
#include "ashlar/communicator.hpp"
#include "sharding/flat_values.hpp"
#include "sharding/registered.hpp"

namespace ashlar {

/// Buckets go in one fixed order, from the last unit registered to the first, so that ranks which
/// compute in different orders, or not at all, still meet in every collective.
class GradientReducer {
 public:
  /// @param states "<flat>/gradient" where sums are kept: whole [padded] at stage 0 and, where the
  /// optimizer owns the gradients, stage 1; the own [shard] elsewhere; none where the caller's
  /// memory keeps them
  /// @param pool of buckets
  GradientReducer(const FlatLayout& layout, const Registered& registered,
                  const ShardedOptions& options, const StateViews& states, ElementOps& ops,
                  MemoryResource& pool, Communicator& communicator);
  ~GradientReducer();
  GradientReducer(const GradientReducer&) = delete;
  GradientReducer& operator=(const GradientReducer&) = delete;

  /// Where a parameter's local gradient is added up; the flat is zeroed at its first use in a step.
  /// @throws InvalidArgument when it has been reported.
  TensorView local(int parameter);
  /// The gradient is complete where registration or local() put it. Waits for ranks that are
  /// late, half a second at most where two buckets travel already.
  /// @throws InvalidArgument when it was reported before, or lies nowhere.
  void ready(int parameter);
  /// The gradient is complete and is copied from `gradient`. @throws InvalidArgument likewise, and
  /// for another shape.
  void ready(int parameter, const TensorView& gradient);
  /// Sends what has not been sent and waits for everything: on a device too, whose sums of squares
  /// the host reads.
  void finish();
  /// Makes ready for the next step.
  void restart();
  /// Zeroes what local() gave and, at stages 0 and 1, may be kept by the caller.
  void clear();

  /// Squares of this rank's part of the sums, by flat; after finish().
  const std::vector<double>& squares() const { return squares_; }
  /// Whether a gradient was reported or its memory asked for; memory of the caller always counts.
  bool touched() const { return touched_; }
  /// Elements [begin, end) of the flat, which lie in one parameter and in the own part (at stage 0:
  /// anywhere); after finish().
  TensorView sum(int flat, const Flat::Entry& entry, std::int64_t begin, std::int64_t end) const;

 private:
  /// One flat in one step.
  struct Travel {
    Buffer local;  // own gradients at stages 2 and 3, in their type
    Buffer send;   // in the wire type, where that is another memory
    Buffer sum;    // where neither a state nor `send` can hold it
    bool clean = false;
    std::vector<bool> ready;   // by entry
    std::vector<bool> copied;  // by entry: already in `send`
    std::size_t missing = 0;
  };
  struct InFlight {
    std::size_t bucket;
    Work work;
    std::span<double> squares;  // of the bucket's flats
  };

  const Flat& flat(int f) const { return layout_.flats()[static_cast<std::size_t>(f)]; }
  Travel& travel(int f) { return travels_[static_cast<std::size_t>(f)]; }
  DType wire(int f) const;
  bool travels_apart(int f) const { return wire(f) != registered_.gradient_dtype(flat(f)); }
  const TensorView* kept(int f) const { return kept_[static_cast<std::size_t>(f)]; }
  std::size_t entry_index(int parameter) const;
  const Parameter& parameter(int p) const {
    return layout_.parameters()[static_cast<std::size_t>(p)];
  }
  TensorView whole_local(int f);
  TensorView local_of(int parameter);
  void note_ready(int parameter);
  void allocate_squares();
  void make_buckets();
  void fetch_squares();
  void launch_complete();
  bool has_room();
  void launch(std::size_t bucket);
  TensorView outgoing(int f);
  TensorView whole_send(int f);
  TensorView target(int f);
  void retire();
  void land(int f);
  bool summed_late(int f) const;
  bool lands_alone(std::size_t bucket) const;
  void sum_over_replicas(int f, const TensorView& own);
  /// Squares in the order of buckets, where collectives put them.
  double* squares_of(int f) {
    std::byte* const all =
        ops_.on_device() ? on_device_.data() : reinterpret_cast<std::byte*>(fresh_.data());
    return reinterpret_cast<double*>(all) + place_of_[static_cast<std::size_t>(f)];
  }

  const FlatLayout& layout_;
  const Registered& registered_;
  const ShardedOptions& options_;
  ElementOps& ops_;
  MemoryResource& pool_;
  Communicator& communicator_;
  std::vector<const TensorView*> kept_;    // by flat: the state of its sums; null: none
  std::vector<Travel> travels_;            // by flat
  std::vector<std::vector<int>> buckets_;  // flats, in the order of sending
  std::size_t launched_ = 0;               // buckets
  std::deque<InFlight> in_flight_;
  std::vector<double> squares_;
  std::vector<std::size_t> place_of_;  // by flat: in fresh_
  std::vector<double> fresh_;          // squares in the order of buckets
  Buffer on_device_;                   // the same there, where there is a device
  Buffer partials_;                    // of a flat's squares there, with replicas
  bool touched_ = false;
  std::chrono::microseconds patience_{500'000};  // for one bucket of peers
  bool in_vain_ = false;                         // it has run out in this step
};

}  // namespace ashlar
