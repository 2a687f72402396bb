// The sequences that attention runs over, and the blocks of queries that they are cut into.
#pragma once

#include "ops/attention_tiles.hpp"
#include "ops/check.hpp"

namespace ashlar {

/// Rows of the sequences: `positions` each, or between given boundaries.
struct Sequences {
  AttentionSizes sizes;
  const std::int32_t* boundaries = nullptr;  // (sequences + 1)

  std::int64_t first_row(std::int64_t sequence) const {
    return boundaries == nullptr ? sequence * sizes.positions : boundaries[sequence];
  }
  std::int64_t length(std::int64_t sequence) const {
    return first_row(sequence + 1) - first_row(sequence);
  }

  /// Places for blocks of queries, numbered through; with boundaries some stay empty.
  std::int64_t places() const {
    return boundaries == nullptr ? sizes.sequences * ((sizes.positions + kQueries - 1) / kQueries)
                                 : first_place(sizes.sequences);
  }
  struct Block {
    std::int64_t sequence, begin;  // begin: position in the sequence
  };
  Block block(std::int64_t place) const {
    if (boundaries == nullptr) return {place % sizes.sequences, place / sizes.sequences * kQueries};
    std::int64_t low = 0, high = sizes.sequences;
    while (high - low > 1) {
      const std::int64_t middle = (low + high) / 2;
      (first_place(middle) <= place ? low : high) = middle;
    }
    return {low, (place - first_place(low)) * kQueries};
  }
  /// Grows by at least the blocks of a sequence.
  std::int64_t first_place(std::int64_t sequence) const {
    return boundaries[sequence] / kQueries + sequence;
  }
};

/// The sequences of a node; boundaries are checked. @throws InvalidArgument.
inline Sequences sequences_of(const AttentionSizes& sizes, const TensorView& boundaries) {
  const auto* at = boundaries.as<const std::int32_t>();
  if (at == nullptr) return {sizes};
  const std::int64_t last = sizes.sequences;
  require(at[0] == 0 && at[last] == sizes.rows,
          "grouped_query_attention: boundaries run from {} to {}, not from 0 to {}", at[0],
          at[last], sizes.rows);
  for (std::int64_t s = 0; s < last; ++s)
    require(at[s] <= at[s + 1],
            "grouped_query_attention: boundary {} at index {} is above the next one, {}", at[s], s,
            at[s + 1]);
  return {sizes, at};
}

}  // namespace ashlar
