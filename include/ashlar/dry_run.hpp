// How long a step of code that calls collectives itself would take on a cluster that need not
// exist: it runs once, here, as one rank of many.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "ashlar/communicator.hpp"
#include "ashlar/op.hpp"

namespace ashlar {

struct DryRunTimes {
  double seconds = 0;            // of the step
  double exposed_seconds = 0;    // in which kernels wait for collectives
  double in_flight_seconds = 0;  // in which a collective moves
  double sent_bytes = 0;         // by all ranks together
};

/// Records what a model around ShardedOptimizer calls, in order, and prices it (docs/simulate.md).
class DryRun {
 public:
  /// @throws InvalidArgument for no ranks.
  explicit DryRun(int ranks);
  ~DryRun();
  DryRun(DryRun&&) noexcept;

  /// Rank 0 of the ranks; the others do not exist. Values mean nothing: a gather repeats the own
  /// part, sums are those of one rank. Messages are refused.
  Communicator& communicator();
  /// A kernel of the caller, where it stands between the collectives: what it computes and moves.
  /// @param dtype of what a product multiplies
  void kernel(const Cost& cost, DType dtype);
  /// Forgets what was recorded: after the optimizer is made, and after a first step at stage 3,
  /// which learns the order of the units.
  void clear();

  /// The step since the last clear. @param cluster "dgx-a100", ..., or a JSON file
  /// @throws InvalidArgument for a cluster that cannot be read, ranks that do not fill its nodes, a
  /// step with broadcasts, all-to-all or barriers, which have no price
  DryRunTimes times(const std::string& cluster) const;

 private:
  struct Implementation;
  std::unique_ptr<Implementation> implementation_;
};

}  // namespace ashlar
