// A sweep over numbers of ranks: which, as a table, as a plot.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "simulate/simulation.hpp"

namespace ashlar::cli {

/// Of "ranks=64..100000": the first, doubled until the last, and the last; beyond a node only whole
/// nodes. @throws InvalidArgument for another form.
std::vector<int> sweep_ranks(const std::string& text, int devices_per_node);

/// A header and a line per point.
std::string sweep_csv(std::span<const simulate::Simulation> points);

/// Tokens per second of all ranks over ranks, both logarithmic, beside ideal scaling from the first
/// point. Light and dark.
std::string sweep_svg(std::span<const simulate::Simulation> points, const std::string& title);

}  // namespace ashlar::cli
