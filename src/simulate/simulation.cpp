#include "simulate/simulation.hpp"

#include <algorithm>
#include <cmath>
#include <tuple>

namespace ashlar::simulate {
namespace {

double seconds(std::int64_t picoseconds) { return static_cast<double>(picoseconds) * 1e-12; }

/// A sum of whole parts, the same in any order; no number of ranks overflows it.
template <std::int64_t kParts>
class Sum {
 public:
  void add(std::int64_t times, std::int64_t parts) {
    whole_ += times * (parts / kParts);
    rest_ += times * (parts % kParts);
  }
  double value() const {
    return static_cast<double>(whole_) + static_cast<double>(rest_) / static_cast<double>(kParts);
  }

 private:
  std::int64_t whole_ = 0, rest_ = 0;
};

/// Whole microjoules per rank.
double joules(const StepTimes& times, std::span<const RankClass> classes, const Device& device) {
  Sum<1'000'000> sum;
  for (std::size_t c = 0; c < classes.size(); ++c) {
    const double busy = seconds(times.classes[c].busy);
    const double idle = seconds(times.end - times.classes[c].busy);
    sum.add(classes[c].ranks,
            std::llround(1e6 * (busy * device.busy_watts + idle * device.idle_watts)));
  }
  return sum.value();
}

/// Largest for the critical rank; ranks with the same are the same to a reader.
auto weight(const ClassTimes& times) { return std::tuple(times.end, times.busy, times.waits); }

}  // namespace

Simulation simulate(const Workload& workload, const Stragglers& stragglers, bool collapse,
                    double tokens, std::int64_t peak_bytes, const Cluster& cluster,
                    const Jitter& jitter) {
  const std::vector<RankClass> classes =
      stragglers.classes(collapse && !jitter.factor.varies(), workload.group).classes;
  const StepTimes times = run(workload, classes, {}, jitter);
  Simulation result;
  result.seconds_per_step = seconds(times.end);
  result.tokens_per_second_per_rank = tokens / result.seconds_per_step;
  const double most = result.seconds_per_step * cluster.device.peak_flops;
  result.mfu = workload.model_flops / most;
  result.hfu = workload.flops / most;
  result.peak_bytes_per_rank = peak_bytes;
  result.energy_joules = joules(times, classes, cluster.device);
  result.ranks = workload.ranks;
  result.events = workload.ranks * workload.instructions;
  result.classes = std::ssize(classes);

  Sum<1'000'000'000'000> exposed;
  std::size_t last = 0;
  for (std::size_t c = 0; c < classes.size(); ++c) {
    exposed.add(classes[c].ranks, times.classes[c].exposed());
    if (weight(times.classes[c]) > weight(times.classes[last])) last = c;
  }
  result.exposed_communication_seconds = exposed.value() / static_cast<double>(workload.ranks);
  result.communication_seconds = seconds(times.in_flight);
  result.compute = workload.compute;
  result.critical_busy_seconds = seconds(times.classes[last].busy);
  result.copy_seconds = seconds(times.classes[last].copies);
  const ComputeSeconds& c = workload.compute;
  result.slowed_seconds =
      result.critical_busy_seconds - (c.product + c.attention + c.memory + c.update);
  for (std::size_t k = 0; k < result.exposed.size(); ++k)
    result.exposed[k] = seconds(times.classes[last].waits[k]);

  if (workload.node_bytes > 0)
    result.node_link_use =
        workload.node_bytes / cluster.node.effective_rate() / result.seconds_per_step;
  if (workload.network_bytes > 0)
    result.network_use = workload.network_bytes / cluster.network_rate() / result.seconds_per_step;
  return result;
}

}  // namespace ashlar::simulate
