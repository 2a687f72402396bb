#include "cli/simulate_text.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

#include "ashlar/memory_resource.hpp"
#include "base/printable.hpp"

namespace ashlar::cli {
namespace {

using simulate::Simulation;

constexpr const char* kConvention =
    "mfu counts 3 x forward's products and attention (causal pairs only), hfu what is executed, "
    "both of the peak in 16 bits";

std::string bar(double share) {
  const auto cells = static_cast<std::size_t>(std::clamp(share, 0.0, 1.0) * 40 + 0.5);
  std::string text;
  for (std::size_t i = 0; i < cells; ++i) text += "█";
  return text;
}

}  // namespace

nlohmann::ordered_json simulation_json(const Simulation& r) {
  return {{"seconds_per_step", r.seconds_per_step},
          {"tokens_per_second_per_rank", r.tokens_per_second_per_rank},
          {"mfu", r.mfu},
          {"hfu", r.hfu},
          {"exposed_communication_seconds", r.exposed_communication_seconds},
          {"peak_bytes_per_rank", r.peak_bytes_per_rank},
          {"energy_joules", r.energy_joules},
          {"ranks", r.ranks},
          {"events", r.events},
          {"classes", r.classes},
          {"communication_seconds", r.communication_seconds},
          {"breakdown_seconds",
           {{"product", r.compute.product},
            {"attention", r.compute.attention},
            {"memory", r.compute.memory},
            {"update", r.compute.update},
            {"slowed", r.slowed_seconds},
            {"input_copies", r.copy_seconds},
            {"exposed_all_gather", r.exposed[0]},
            {"exposed_reduce_scatter", r.exposed[1]},
            {"exposed_all_reduce", r.exposed[2]}}},
          {"link_use", {{"node", r.node_link_use}, {"network", r.network_use}}},
          {"flop_convention", kConvention}};
}

std::string simulation_text(const Simulation& r, const std::string& model,
                            const simulate::Cluster& cluster) {
  std::string text;
  const auto line = [&]<typename... T>(fmt::format_string<T...> format, T&&... arguments) {
    fmt::format_to(std::back_inserter(text), format, std::forward<T>(arguments)...);
    text += '\n';
  };
  line("{} on {} ranks of {}, {} class(es) of equal ranks: a clock each", printable(model), r.ranks,
       printable(cluster.name), r.classes);
  line("  {:.6g} s per step, {:.6g} tokens/s per rank, {:.1f} % MFU, {:.1f} % HFU ({})",
       r.seconds_per_step, r.tokens_per_second_per_rank, 100 * r.mfu, 100 * r.hfu, kConvention);
  line("  {} per rank at the peak ({} bytes): {} the {} of a device",
       format_bytes(r.peak_bytes_per_rank), r.peak_bytes_per_rank,
       static_cast<double>(r.peak_bytes_per_rank) <= cluster.device.memory_bytes ? "within"
                                                                                 : "MORE than",
       format_bytes(static_cast<std::int64_t>(cluster.device.memory_bytes)));
  line("  {:.6g} kJ per step of all devices", r.energy_joules / 1e3);
  line("critical path, on the rank that has most to do:");
  const auto part = [&](const char* name, double seconds) {
    if (seconds > 0.0005 * r.seconds_per_step)
      line("  {:27} {:>12.6f} s {:>5.1f} % {}", name, seconds, 100 * seconds / r.seconds_per_step,
           bar(seconds / r.seconds_per_step));
  };
  part("products", r.compute.product);
  part("attention", r.compute.attention);
  part("other kernels", r.compute.memory);
  part("update", r.compute.update);
  part("slowed (overlap, straggler)", r.slowed_seconds);
  part("copies of inputs", r.copy_seconds);
  part("waits for gathers", r.exposed[0]);
  part("waits for reductions", r.exposed[1]);
  part("waits for sums", r.exposed[2]);
  line("collectives in flight for {:.6f} s; links in a node {:.1f} % used, network {:.1f} %",
       r.communication_seconds, 100 * r.node_link_use, 100 * r.network_use);
  return text;
}

}  // namespace ashlar::cli
