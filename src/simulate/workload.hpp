// A Program with a price on every instruction: what the clock engine sweeps over.
#pragma once

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "graph/program.hpp"
#include "graph/rank_groups.hpp"
#include "simulate/collective_time.hpp"

namespace ashlar::simulate {

/// One collective of the program, in the order of issue.
struct CollectiveCall {
  CollectiveKind kind = CollectiveKind::all_gather;
  std::int64_t bytes = 0;  // the whole, in the type that travels
  int ranks = 1;           // of its group
  std::int64_t picoseconds = 0;
  std::string label;  // the node's unit or value
  int stream = 0;     // 0 or 1: of the rank's two for communication
  Among among = Among::world;

  bool operator==(const CollectiveCall&) const = default;
  /// By the ranks of its group together.
  double sent_bytes() const {
    return static_cast<double>(bytes) * (ranks - 1) * (kind == CollectiveKind::all_reduce ? 2 : 1);
  }
};

inline std::int64_t picoseconds_of(double seconds) { return std::llround(seconds * 1e12); }

/// Kernels without a collective between them, the start or wait of one, or a copy of data inputs
/// from the host, which kernels after it wait for.
struct Task {
  enum class Kind : std::uint8_t { compute, start, wait, copy };
  Kind kind = Kind::compute;
  std::int64_t picoseconds = 0;       // compute: of all its kernels; copy
  int collective = -1;                // start, wait: index into Workload::collectives
  int first_step = 0, last_step = 0;  // compute: Program::steps [first, last)
};

/// Where kernels spend their time, in seconds of one rank and step.
struct ComputeSeconds {
  double product = 0, attention = 0, memory = 0, update = 0;
};

struct Workload {
  int ranks = 1;
  int group = 0;  // ranks of a sharding group, neighbours; 0: one group of all
  std::vector<Task> tasks;
  int body_first = 0, body_last = 0;  // tasks [body_first, body_last) are repeated
  std::int64_t repeats = 1;           // of the body
  std::vector<CollectiveCall> collectives;
  std::vector<std::int64_t> step_picoseconds;  // by Program::steps; 0 for starts and waits
  ComputeSeconds compute;
  double flops = 0;        // executed by products and attention in a step, recomputation included
  double model_flops = 0;  // 3 x those of forward: backward as two forwards, nothing twice
  std::int64_t instructions = 0;  // of one rank and step
  double sent_bytes = 0;          // by all ranks together in a step
  double node_bytes = 0;          // that a rank moves over the links of its node
  double network_bytes = 0;       // that a node moves over the network
  double overlap_slowdown = 0;    // the cluster's
};

/// How the collectives run, and what other software than Ashlar's does with the same step.
struct Pricing {
  Algorithm algorithm = Algorithm::automatic;
  double gather_scale = 1;   // bytes of gathered parameters on the wire by the program's own
  double traffic_scale = 1;  // bytes that kernels move by those of the program's fused ones
  double logit_bytes = 0;    // that a head which is not fused moves besides, per token and word
  double cast_bytes = 0;     // moved per gathered element before it is used
  bool overlap_reductions = true;  // off: kernels wait while gradients travel
  int streams = 1;  // 2: reductions have one of their own, and share the links with the others
};

/// @param micro_batches K of the step @throws InvalidArgument for rank counts as seconds_of
Workload price(const Program& program, std::int64_t micro_batches, int ranks,
               const Cluster& cluster, const Pricing& pricing = {});

}  // namespace ashlar::simulate
