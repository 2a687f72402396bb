// What moves in a collective, apart from how: each flat is one pass (all_reduce: two) in which
// every rank reads a range of elements of every rank's send, and copies them or sums them in rank
// order.
#pragma once

#include <algorithm>
#include <cstdint>

#include "comm/operation.hpp"
#include "comm/reduce.hpp"

namespace ashlar::detail {

struct Range {
  std::int64_t first;
  std::int64_t count;
};

class Pass {
 public:
  enum class Pattern : std::uint8_t {
    gather,        // all read source's send, whole
    scatter,       // reader r reads part r of each send
    reduce_parts,  // as scatter, over parts that need not divide the values: all_reduce, first
    gather_parts,  // all read part s of source s's values: all_reduce, second
    from_root,     // all read the root's values
  };

  Pass(Pattern pattern, const Operation& operation, std::size_t flat, int size)
      : pattern_(pattern), operation_(&operation), flat_(flat), size_(size) {}

  const Flat& flat() const { return operation_->flats[flat_]; }
  std::size_t flat_index() const { return flat_; }
  std::int64_t send_size() const { return size_of(flat().send_type); }
  Kind kind() const { return operation_->header.kind; }
  /// Whether each reader takes another range of a source.
  bool scatters() const {
    return pattern_ == Pattern::scatter || pattern_ == Pattern::reduce_parts;
  }
  bool sums() const { return pattern_ == Pattern::reduce_parts || kind() == Kind::reduce_scatter; }

  /// The elements of source's send that `reader` takes. All readers of a sum take as many from
  /// each.
  Range read(int source, int reader) const {
    const std::int64_t count = flat().count;
    switch (pattern_) {
      case Pattern::gather:
        return {0, count};
      case Pattern::scatter:
        return {reader * count, count};
      case Pattern::reduce_parts:
        return part_of(reader);
      case Pattern::gather_parts:
        return part_of(source);
      case Pattern::from_root:
        return {0, source == operation_->header.peer ? count : 0};
    }
    return {0, 0};
  }
  /// Where a copy's elements from `source` begin in recv.
  std::int64_t landing(int source) const {
    switch (pattern_) {
      case Pattern::gather:
      case Pattern::scatter:
        return source * flat().count;
      case Pattern::gather_parts:
        return part_of(source).first;
      default:
        return 0;
    }
  }
  /// No range is longer.
  std::int64_t longest() const {
    return pattern_ == Pattern::reduce_parts || pattern_ == Pattern::gather_parts ? part_length()
                                                                                  : flat().count;
  }

  /// Sums elements [first, first + count) of this reader's range, which `sources` point to.
  void sum(std::span<const std::byte* const> sources, Range piece, int reader) const {
    const bool parts = pattern_ == Pattern::reduce_parts;
    const std::int64_t begin = (parts ? part_of(reader).first : 0) + piece.first;
    const ReduceOptions& options = operation_->options;
    double* squares = options.sum_of_squares.empty() ? nullptr : &options.sum_of_squares[flat_];
    reduce({.sources = sources,
            .source_type = flat().send_type,
            .recv = flat().recv + begin * size_of(flat().recv_type),
            .recv_type = flat().recv_type,
            .count = piece.count,
            .accumulate = options.accumulate,
            .round_to_bf16 = options.round_to_bf16,
            .sum_of_squares = squares});
  }

 private:
  /// Parts of an all_reduce begin at multiples of 64 elements.
  std::int64_t part_length() const { return (flat().count + size_ * 64 - 1) / (size_ * 64) * 64; }
  Range part_of(int rank) const {
    const std::int64_t first = std::min(rank * part_length(), flat().count);
    return {first, std::min(part_length(), flat().count - first)};
  }

  Pattern pattern_;
  const Operation* operation_;
  std::size_t flat_;
  int size_;
};

/// Calls `move(pass)` for every pass of a collective, and `turn()` where every rank must have
/// finished the passes so far before any begins the next.
template <typename Move, typename Turn>
void for_each_pass(const Operation& operation, std::size_t first, std::size_t last, int size,
                   const Move& move, const Turn& turn) {
  const auto sweep = [&](Pass::Pattern pattern) {
    for (std::size_t f = first; f < last; ++f) move(Pass(pattern, operation, f, size));
  };
  switch (operation.header.kind) {
    case Kind::all_gather:
      return sweep(Pass::Pattern::gather);
    case Kind::reduce_scatter:
    case Kind::all_to_all:
      return sweep(Pass::Pattern::scatter);
    case Kind::all_reduce:
      sweep(Pass::Pattern::reduce_parts);
      turn();
      return sweep(Pass::Pattern::gather_parts);
    case Kind::broadcast:
      return sweep(Pass::Pattern::from_root);
    default:
      return;
  }
}

}  // namespace ashlar::detail
