// A training step on a cluster that need not exist: seconds, energy and where they go.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "sharding/compile_step.hpp"
#include "simulate/engine.hpp"
#include "simulate/rank_classes.hpp"

namespace ashlar::simulate {

/// Which ranks are slower, and by how much.
class Stragglers {
 public:
  /// "COUNTxFACTOR" (the last COUNT ranks take FACTOR times as long), a Distribution that each
  /// rank's factor is drawn from (by Philox from the seed and the rank alone), or the path of a
  /// file with one factor per line, one line per rank; empty: none.
  /// @throws InvalidArgument for what is none of them, a factor outside [0.1, 1000], more or fewer
  /// ranks than there are.
  Stragglers(const std::string& text, int ranks, std::uint64_t seed = 0);

  /// Ranks that behave alike together, or one class per rank. @param group as Workload::group
  RankClasses classes(bool collapse, int group = 0) const;

 private:
  std::vector<double> slowdowns_;  // by rank
};

struct Simulation {
  double seconds_per_step = 0;
  double tokens_per_second_per_rank = 0;
  double mfu = 0;  // model operations: 3 x forward's products and attention (causal pairs only)
  double hfu = 0;  // operations executed, recomputation included
  double exposed_communication_seconds = 0;  // the mean over ranks
  std::int64_t peak_bytes_per_rank = 0;
  double energy_joules = 0;  // of the devices, all ranks
  std::int64_t ranks = 0;
  std::int64_t events = 0;  // instructions of all ranks
  std::int64_t classes = 0;

  double communication_seconds = 0;  // with a collective in flight
  ComputeSeconds compute;            // of a rank that is not slowed down
  double slowed_seconds = 0;         // what stragglers and overlap add on the critical rank
  std::array<double, 3> exposed{};   // on the critical rank (the last to end, and of these the one
                                     // that computes most), by CollectiveKind
  double copy_seconds = 0;           // of data inputs, on the critical rank
  double critical_busy_seconds = 0;
  double node_link_use = 0;  // share of the step in which ... moves at its effective rate
  double network_use = 0;
};

/// @param collapse equal ranks into classes, unless there is jitter @param tokens of one rank in a
/// step
Simulation simulate(const Workload& workload, const Stragglers& stragglers, bool collapse,
                    double tokens, std::int64_t peak_bytes, const Cluster& cluster,
                    const Jitter& jitter = {});

}  // namespace ashlar::simulate
