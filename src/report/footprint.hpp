// What a compiled step needs of a rank, read off the Program that would run: bytes by category, who
// holds them at the peak, and what crosses ranks.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "ashlar/communicator.hpp"
#include "report/closed_form.hpp"
#include "sharding/compile_step.hpp"

namespace ashlar {

/// A run of bytes of the plan, as it lies in its arena.
struct PlannedBlock {
  std::string name;  // "h.3/master", "h.3 linear", "h.3 linear workspace"
  std::string kind;  // transients of one name in reports: "gather buffers", "linear"; else empty
  Category category = Category::activation;
  Space space = Space::transient;
  std::int64_t offset = 0;
  std::int64_t bytes = 0;
  int first = 0, last = 0;      // in use during steps [first, last) of the Program; states always
  const Node* maker = nullptr;  // null for states and data inputs
  int unit = -1;
};

/// States, then transients in the order that they come into use. Points into `step`.
std::vector<PlannedBlock> planned_blocks(const CompiledStep& step);

struct Footprint {
  std::int64_t parameters = 0;  // of the model
  int ranks = 1;
  int group = 1;                      // of them share one copy of the model state
  ModelStateBytes model_state;        // of a rank, as allocated
  MemoryUse peak;                     // of the step
  int peak_index = 0;                 // of the instruction at the largest load
  std::string peak_op;                // "h.3 linear"
  std::vector<PlannedBlock> at_peak;  // largest first
  /// The most that transients of one name take together at any instant.
  std::map<std::string, std::int64_t> transients;
  SentBytes sent{};  // of a step: the rank that sends most
};

/// Points into `step`.
Footprint footprint(const CompiledStep& step);

/// Bytes that a rank sends per step, counted instruction by instruction as the communicator moves
/// them; by kind, of the rank that sends most of it.
SentBytes sent_bytes(const CompiledStep& step);

}  // namespace ashlar
