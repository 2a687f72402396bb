// Which bytes each value is: views, in-place updates and placements resolved to (buffer, offset),
// and lifetimes of the buffers over a schedule.
#pragma once

#include <string>
#include <vector>

#include "graph/schedule.hpp"

namespace ashlar {

/// A run of bytes that lives and dies as one.
struct StorageBuffer {
  std::int64_t bytes = 0;
  Category category = Category::activation;
  InputKind kind = InputKind::none;  // none: a transient; data: a transient filled before each
                                     // micro-batch; else a state
  bool window = false;               // read by peers
  ValueId root = kNoValue;           // the value that is the whole buffer
  int first = -1;                    // instructions [first, last) during which the bytes are in use
  int last = -1;
};

/// Where a value lies in its buffer. In bytes; rank r's bytes begin at offset + r x rank_stride.
struct Place {
  int buffer = -1;
  std::int64_t offset = 0;
  std::int64_t rank_stride = 0;
};

struct Storage {
  std::vector<StorageBuffer> buffers;
  std::vector<Place> places;  // by ValueId
};

/// Inputs above this size of a collective live in the window.
inline constexpr std::int64_t kWindowBytes = 4096;

/// Resolves aliasing and computes lifetimes for transients and data inputs; states live always.
/// A transient lives from the instruction that first writes any of its bytes to the last that
/// touches it (a collective's until its wait); one that crosses from the prologue into the body
/// lives to the body's end.
Storage resolve_storage(const Graph& graph, const std::vector<Instruction>& instructions);

}  // namespace ashlar
