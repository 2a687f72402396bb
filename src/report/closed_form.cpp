#include "report/closed_form.hpp"

namespace ashlar {
namespace {

std::int64_t divide_up(std::int64_t bytes, int ranks) { return (bytes + ranks - 1) / ranks; }

}  // namespace

ModelStateBytes state_formula(const ZeroCase& zero) {
  const std::int64_t p = zero.bf16 ? 2 : 4;
  const std::int64_t g = zero.bf16 && zero.accumulate == 1 ? 2 : 4;
  const std::int64_t s = 4 * (zero.optimizer_states + (zero.bf16 ? 1 : 0));
  const bool local_sums = zero.accumulate > 1 && !zero.reduce_each && !zero.layer_order;
  const bool whole_gradients = zero.stage < 2 || local_sums;
  const auto share = [&](std::int64_t bytes, bool whole) {
    return whole ? bytes : divide_up(bytes, zero.ranks);
  };
  return {share(p * (zero.trainable + zero.frozen), zero.stage < 3),
          share(g * zero.trainable, whole_gradients), share(s * zero.trainable, zero.stage < 1)};
}

TrafficFormula traffic_formula(const ZeroCase& zero) {
  const std::int64_t p = zero.bf16 ? 2 : 4;
  const std::int64_t wire = zero.bf16_wire ? 2 : 4;
  const std::int64_t k = zero.layer_order ? 1 : zero.accumulate;
  const std::int64_t gathered =
      zero.stage < 3 ? zero.padded_trainable
                     : k * (zero.reshard ? 2 * zero.padded - zero.padded_once : zero.padded);
  const std::int64_t reduced = (zero.reduce_each ? k : 1) * zero.padded_trainable;
  const auto sent = [&](std::int64_t bytes) { return bytes / zero.ranks * (zero.ranks - 1); };
  const std::int64_t sums = 4 * zero.padded_trainable / zero.ranks;
  return {sent(gathered * p), sent(reduced * wire),
          2 * (zero.replicas - 1) * (sums / zero.replicas)};
}

}  // namespace ashlar
