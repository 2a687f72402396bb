// What `ashlar simulate` prints.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "simulate/simulation.hpp"

namespace ashlar::cli {

nlohmann::ordered_json simulation_json(const simulate::Simulation& result);

/// Totals, where the time goes on the critical rank, links.
std::string simulation_text(const simulate::Simulation& result, const std::string& model,
                            const simulate::Cluster& cluster);

}  // namespace ashlar::cli
