#include "report/planner.hpp"

#include <algorithm>
#include <cmath>

namespace ashlar::planner {
namespace {

double number(std::int64_t value) { return static_cast<double>(value); }

std::int64_t element_bytes(const Problem& problem) { return problem.bf16 ? 2 : 4; }

/// Several nodes, all of them full.
bool may_group(const Problem& problem) {
  return problem.node > 0 && problem.ranks > problem.node && problem.ranks % problem.node == 0;
}

int shards_of(const Problem& problem, const Candidate& c) {
  return c.group > 0 ? c.group : problem.ranks;
}

bool legal(const Candidate& c) {
  if (c.group > 0 && c.stage == 0) return false;
  if (c.accumulate == 1 && c.order == MicroBatchOrder::layers) return false;
  if (c.accumulate == 1 && c.reduce_each != (c.stage >= 2)) return false;  // one and the same
  if (c.order == MicroBatchOrder::layers && c.reduce_each) return false;
  return c.reshard || c.stage == 3;
}

/// Channels per token that a block keeps from forward to backward, at least.
std::int64_t kept_channels(const ModelShape& model, Recompute how) {
  switch (how) {
    case Recompute::none:  // attention's output, and what both norms make
      return model.block_channels + 3 * model.width;
    case Recompute::cheap:
      return model.block_channels + model.width;
    case Recompute::selective:
      return model.block_channels;
    default:
      return model.width;  // what enters it
  }
}

}  // namespace

ModelShape shape_of(const LanguageModel& model) {
  Tracer tracer;
  model.loss(tracer, {1, 1, DType::f32, 0, {}});
  ModelShape shape;
  const int last = static_cast<int>(tracer.graph().units.size()) - 1;
  for (const Parameter& p : tracer.graph().parameters) {
    const std::int64_t elements = p.shape.elements();
    shape.parameters += elements;
    if (p.unit == 0) shape.embedding += elements;
    if (p.unit == 1) shape.block += elements;
    if (p.unit == last) shape.head += elements;
  }
  shape.tied = model.tied();
  shape.layers = model.layers();
  shape.width = model.width();
  shape.vocabulary = model.vocabulary();
  shape.block_channels = model.block_channels();
  return shape;
}

std::vector<Candidate> candidates(const Problem& problem) {
  std::vector<Candidate> all;
  const std::int64_t sequences = problem.global_batch / problem.ranks;
  for (std::int64_t batch = 1; batch <= sequences; ++batch) {
    if (sequences % batch != 0) continue;
    for (const int stage : {0, 1, 2, 3})
      for (const auto order : {MicroBatchOrder::micro_batches, MicroBatchOrder::layers})
        for (const bool each : {true, false})
          for (const auto recompute :
               {Recompute::none, Recompute::cheap, Recompute::selective, Recompute::per_unit})
            for (const bool reshard : {true, false})
              for (const int group : {0, problem.node}) {
                const Candidate c{stage, batch,     sequences / batch, order,
                                  each,  recompute, reshard,           group};
                if (legal(c)) all.push_back(c);
                if (!may_group(problem)) break;
              }
  }
  return all;
}

std::int64_t least_bytes(const Problem& problem, const Candidate& c) {
  const ModelShape& model = problem.model;
  ZeroCase zero;
  zero.trainable = model.parameters;
  zero.ranks = shards_of(problem, c);
  zero.stage = c.stage;
  zero.bf16 = problem.bf16;
  zero.accumulate = c.accumulate;
  zero.reduce_each = c.reduce_each;
  zero.layer_order = c.order == MicroBatchOrder::layers;
  zero.optimizer_states = problem.optimizer_states;
  const std::int64_t held = zero.layer_order ? c.accumulate : 1;
  const std::int64_t kept = (model.layers - 1) * kept_channels(model, c.recompute) * held *
                            c.batch * problem.sequence * element_bytes(problem);
  std::int64_t gathered = 0;
  if (c.stage == 3) {
    const std::int64_t table = model.vocabulary * model.width;  // the head reads it
    gathered = std::max(model.block, table) * element_bytes(problem);
    if (!c.reshard) gathered = model.layers * model.block * element_bytes(problem);
  }
  return state_formula(zero).sum() + kept + gathered;
}

StepTime::StepTime(const Problem& problem, const simulate::Cluster& cluster)
    : problem_(problem), cluster_(cluster) {
  const ModelShape& m = problem.model;
  all_ = collectives(problem.ranks);
  if (may_group(problem)) node_ = collectives(problem.node);
  const double tokens = number(problem.sequence);
  forward_blocks_ = 2 * number(m.layers * m.block) * tokens;
  forward_products_ = forward_blocks_ + 2 * number(m.vocabulary * m.width) * tokens;
  forward_attention_ = 2 * number(m.layers * m.width) * tokens * tokens;  // causal pairs
}

StepTime::Collectives StepTime::collectives(int group) const {
  using simulate::CollectiveKind;
  const ModelShape& m = problem_.model;
  const auto seconds = [&](CollectiveKind kind, std::int64_t elements) {
    return simulate::seconds_of(kind, number(elements * element_bytes(problem_)), group, cluster_,
                                simulate::Algorithm::automatic);
  };
  const auto across = [&](std::int64_t elements) {
    return simulate::seconds_of(CollectiveKind::all_reduce, 4 * number(elements) / group,
                                problem_.ranks / group, cluster_, simulate::Algorithm::automatic,
                                group);
  };
  return {number(m.layers) * seconds(CollectiveKind::all_gather, m.block),
          seconds(CollectiveKind::all_gather, m.embedding) +
              seconds(CollectiveKind::all_gather, m.tied ? m.embedding : m.head),
          number(m.layers) * seconds(CollectiveKind::reduce_scatter, m.block) +
              seconds(CollectiveKind::reduce_scatter, m.embedding + m.head),
          number(m.layers) * across(m.block) + across(m.embedding + m.head)};
}

double StepTime::operator()(const Candidate& c) const {
  const simulate::Device& device = cluster_.device;
  const double peak = problem_.bf16 ? device.peak_flops : device.peak_flops_f32;
  const double again = c.recompute == Recompute::per_unit ? 1 : 0;
  const double attention_again = c.recompute == Recompute::selective ? 1 : again;
  const double sequences = number(c.batch * c.accumulate);
  const double products = sequences * (3 * forward_products_ + again * forward_blocks_) / peak /
                          device.product_efficiency;
  const double attention = sequences * forward_attention_ *
                           (1 + attention_again + 2 * device.attention_backward_slowdown) / peak /
                           device.attention_efficiency;
  const double updated =
      number(problem_.model.parameters) / (c.stage >= 1 ? shards_of(problem_, c) : 1);
  const double update = 28 * updated / (device.memory_rate * device.memory_efficiency);
  const double visits = c.order == MicroBatchOrder::layers ? 1 : number(c.accumulate);
  const auto& [gather_blocks, gather_ends, reduce, across] = c.group > 0 ? node_ : all_;
  const double hidden =
      (c.reduce_each ? visits : 1) * reduce + across +
      (c.stage == 3 ? visits * ((c.reshard ? 2 : 1) * gather_blocks + gather_ends) : 0);
  const double after = c.stage < 3 ? gather_blocks + gather_ends : 0;
  const double compute = products + attention;
  const double slowed = compute + cluster_.overlap_slowdown * std::min(compute, hidden);
  return std::max(slowed, hidden) + update + after;
}

double goodput(double mean_seconds, double checkpoint_seconds) {
  if (checkpoint_seconds <= 0) return 1;
  const double interval = std::sqrt(2 * checkpoint_seconds * mean_seconds);
  const double lost = checkpoint_seconds / interval + interval / (2 * mean_seconds);
  return std::max(0.0, 1 - lost);
}

}  // namespace ashlar::planner
