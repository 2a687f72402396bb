// Block sizes of attention and the tiles that one thread works in.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ashlar/memory_resource.hpp"
#include "ops/attention_kernels.hpp"

namespace ashlar {

inline constexpr std::int64_t kQueries = 64;   // per block
inline constexpr std::int64_t kKeys = 64;      // per step below the diagonal
inline constexpr std::int64_t kDiagonal = 16;  // keys per step on it

/// Channels of a head, padded to whole vectors.
inline std::int64_t padded(std::int64_t head_size) { return (head_size + 15) / 16 * 16; }

/// Hands out aligned parts of a thread's scratch; with no memory it counts.
class Scratch {
 public:
  explicit Scratch(std::byte* memory) : memory_(memory) {}
  template <typename T>
  T* take(std::int64_t count) {
    T* part = memory_ == nullptr ? nullptr : reinterpret_cast<T*>(memory_ + used_);
    used_ += align_up(count * static_cast<std::int64_t>(sizeof(T)));
    return part;
  }
  std::int64_t used() const { return used_; }

 private:
  std::byte* memory_;
  std::int64_t used_ = 0;
};

/// Tiles that forward and backward share. `copy_keys`: keys and values are widened first.
template <typename C>
struct AttentionTiles {
  AttentionTiles(Scratch& scratch, std::int64_t head_size, bool copy_keys)
      : query(scratch.take<C>(head_size * kQueries)),
        scores(scratch.take<C>(kKeys * kQueries)),
        sums(scratch.take<C>(head_size * kQueries)),
        keys(copy_keys ? scratch.take<C>(kKeys * head_size) : nullptr),
        values(copy_keys ? scratch.take<C>(kKeys * head_size) : nullptr) {}
  C* query;   // (D, queries), scaled
  C* scores;  // (keys, queries)
  C* sums;    // (D, queries): output, or the queries' gradient
  C* keys;    // (keys, D)
  C* values;  // (keys, D)
};

template <typename C>
struct BackwardTiles : AttentionTiles<C> {
  BackwardTiles(Scratch& scratch, const AttentionSizes& sizes, bool copy_keys)
      : AttentionTiles<C>(scratch, sizes.head_size, copy_keys),
        slopes(scratch.take<C>(kKeys * kQueries)),
        dout(scratch.take<C>(sizes.head_size * kQueries)),
        query_rows(scratch.take<C>(kQueries * padded(sizes.head_size))),
        dout_rows(scratch.take<C>(kQueries * padded(sizes.head_size))),
        dkeys(scratch.take<C>(sizes.positions * padded(sizes.head_size))),
        dvalues(scratch.take<C>(sizes.positions * padded(sizes.head_size))) {}
  C* slopes;      // (keys, queries): dP, then dS
  C* dout;        // (D, queries)
  C* query_rows;  // (queries, padded D), scaled
  C* dout_rows;   // (queries, padded D)
  C* dkeys;       // (T, padded D)
  C* dvalues;     // (T, padded D)
};

}  // namespace ashlar
