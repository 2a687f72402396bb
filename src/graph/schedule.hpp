// From a Graph to the order in which instructions are issued. Every node is one instruction but for
// collectives, which are two: start and wait.
#pragma once

#include <vector>

#include "ashlar/op.hpp"

namespace ashlar {

struct Instruction {
  enum class Kind : std::uint8_t { run, start, wait };
  Kind kind = Kind::run;
  int node = 0;
};

struct ScheduleOptions {
  int prefetch = 1;     // gathers marked "prefetch" start this many gathers ahead of their use
  bool overlap = true;  // off: every start is followed by its wait
};

/// Keeps the order of the nodes. A collective starts where its node stands, but one with the
/// attribute `prefetch` starts before the gather that stands `options.prefetch` before it (never
/// before its inputs are defined, never in another section). It is waited for at its first use; one
/// that nothing in its section uses, or whose use is far (a reduction), when the next collective of
/// its kind starts, so that two of them are in flight at most.
std::vector<Instruction> schedule(const Graph& graph, const ScheduleOptions& options);

/// Throws unless every node appears once in order of its inputs, every start has its wait, and no
/// instruction touches a value of a collective between its start and its wait.
void validate(const Graph& graph, const std::vector<Instruction>& instructions);

}  // namespace ashlar
