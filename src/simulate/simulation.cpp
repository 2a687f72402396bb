#include "simulate/simulation.hpp"

#include <algorithm>
#include <cmath>

namespace ashlar::simulate {
namespace {

double seconds(std::int64_t picoseconds) { return static_cast<double>(picoseconds) * 1e-12; }

/// Whole microjoules per rank, so that the sum is the same however ranks are grouped.
std::int64_t microjoules(const StepTimes& times, std::span<const RankClass> classes,
                         const Device& device) {
  const std::int64_t busy_watts = std::llround(device.busy_watts);
  const std::int64_t idle_watts = std::llround(device.idle_watts);
  std::int64_t sum = 0;
  for (std::size_t c = 0; c < classes.size(); ++c) {
    const std::int64_t busy = times.classes[c].busy;
    const std::int64_t picojoules = busy * busy_watts + (times.end - busy) * idle_watts;
    sum += classes[c].ranks * (picojoules / 1000000);
  }
  return sum;
}

}  // namespace

Simulation simulate(const Workload& workload, const Stragglers& stragglers, bool collapse,
                    double tokens, std::int64_t peak_bytes, const Cluster& cluster,
                    const Jitter& jitter) {
  const std::vector<RankClass> classes = stragglers.classes(collapse && jitter.sigma == 0);
  const StepTimes times = run(workload, classes, {}, jitter);
  Simulation result;
  result.seconds_per_step = seconds(times.end);
  result.tokens_per_second_per_rank = tokens / result.seconds_per_step;
  const double most = result.seconds_per_step * cluster.device.peak_flops;
  result.mfu = workload.model_flops / most;
  result.hfu = workload.flops / most;
  result.peak_bytes_per_rank = peak_bytes;
  result.energy_joules = static_cast<double>(microjoules(times, classes, cluster.device)) * 1e-6;
  result.ranks = workload.ranks;
  result.events = workload.ranks * workload.instructions;
  result.classes = std::ssize(classes);

  std::int64_t exposed = 0;
  std::size_t last = 0;
  for (std::size_t c = 0; c < classes.size(); ++c) {
    exposed += classes[c].ranks * (times.classes[c].exposed() / 1000);
    if (times.classes[c].busy > times.classes[last].busy) last = c;
  }
  result.exposed_communication_seconds =
      static_cast<double>(exposed) * 1e-9 / static_cast<double>(workload.ranks);
  result.communication_seconds = seconds(times.in_flight);
  result.compute = workload.compute;
  result.critical_busy_seconds = seconds(times.classes[last].busy);
  const ComputeSeconds& c = workload.compute;
  result.slowed_seconds =
      result.critical_busy_seconds - (c.product + c.attention + c.memory + c.update);
  for (std::size_t k = 0; k < result.exposed.size(); ++k)
    result.exposed[k] = seconds(times.classes[last].waits[k]);

  const double sent =
      static_cast<double>(workload.sent_bytes) / static_cast<double>(workload.ranks);
  const int local = std::min(workload.ranks, cluster.devices_per_node);
  if (local > 1)
    result.node_link_use = sent / cluster.node.effective_rate() / result.seconds_per_step;
  if (workload.ranks > cluster.devices_per_node) {
    result.network_use = sent / cluster.network_rate() / result.seconds_per_step;
  }
  return result;
}

}  // namespace ashlar::simulate
