// Which settings of a training step fit a cluster, and which of them are quick: every candidate by
// formulas, cheap enough to try them all; the best are then compiled and simulated by the caller.
#pragma once

#include <cstdint>
#include <vector>

#include "ashlar/nn/language_model.hpp"
#include "ashlar/train_step.hpp"
#include "report/closed_form.hpp"
#include "simulate/collective_time.hpp"

namespace ashlar::planner {

/// What the formulas take of a model: counted from its parameters once.
struct ModelShape {
  std::int64_t parameters = 0;
  std::int64_t embedding = 0;  // parameters of the units around the blocks
  std::int64_t head = 0;
  std::int64_t block = 0;  // of one block
  bool tied = true;
  std::int64_t layers = 0;
  std::int64_t width = 0;
  std::int64_t vocabulary = 0;
  std::int64_t block_channels = 0;  // LanguageModel::block_channels
};
ModelShape shape_of(const LanguageModel& model);

/// What is given.
struct Problem {
  ModelShape model;
  int ranks = 1;
  std::int64_t sequence = 1;
  std::int64_t global_batch = 1;  // sequences of a step, all ranks; a multiple of ranks
  bool bf16 = true;
  int optimizer_states = 2;
  int node = 0;  // ranks of one, which may share a copy of the model state; 0: not tried
};

/// What is to be chosen.
struct Candidate {
  int stage = 3;
  std::int64_t batch = 1;       // per rank and micro-batch
  std::int64_t accumulate = 1;  // batch x accumulate x ranks = global batch
  MicroBatchOrder order = MicroBatchOrder::micro_batches;
  bool reduce_each = true;
  Recompute recompute = Recompute::cheap;
  bool reshard = true;
  int group = 0;  // ZeroConfig::group
};

/// Every combination that a TrainStep takes, in a fixed order.
std::vector<Candidate> candidates(const Problem& problem);

/// Bytes of a rank: model state without padding; what each block keeps for backward; the largest
/// gathered unit. A lower bound on the Program's total.
std::int64_t least_bytes(const Problem& problem, const Candidate& candidate);

/// Seconds of a step by formulas, for ranking: products and attention at the device's rates, the
/// update's bytes, collectives by unit, hidden behind compute where they run beside it. Sums go
/// over the copies of the model state once a step.
class StepTime {
 public:
  StepTime(const Problem& problem, const simulate::Cluster& cluster);
  double operator()(const Candidate& candidate) const;

 private:
  const Problem& problem_;
  const simulate::Cluster& cluster_;
  /// Of all units once, in seconds.
  struct Collectives {
    double gather_blocks = 0, gather_ends = 0, reduce = 0, across = 0;
  };
  Collectives collectives(int group) const;

  Collectives all_, node_;  // where all ranks, and where those of a node share a copy
  double forward_products_ = 0, forward_blocks_ = 0, forward_attention_ = 0;  // per sequence
};

/// First-order optimum of checkpointing (Young 1974; Daly 2006): the share of time that trains.
/// @param mean_seconds between failures of the whole cluster @param checkpoint_seconds of one
double goodput(double mean_seconds, double checkpoint_seconds);

}  // namespace ashlar::planner
