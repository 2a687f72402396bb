// Which ranks of a step behave alike: what a collapsed simulation keeps one clock for.
#pragma once

#include <span>
#include <vector>

#include "simulate/engine.hpp"

namespace ashlar::simulate {

struct RankClasses {
  std::vector<RankClass> classes;
  std::vector<int> class_of;  // by rank
};

/// One class per rank. @param slowdowns by rank @param group ranks of a sharding group, which
/// divide all; 0: no groups
RankClasses ranks_apart(std::span<const double> slowdowns, int group);

/// Ranks in one class are slowed alike, and so are, class by class, those whom they meet in their
/// group and in their position: the coarsest such partition, by refinement (as Hopcroft's for
/// automata, one round after the other). Classes are in the order of their slowdowns. Where 32
/// rounds do not end it, each rank is a class of its own: slower to simulate, with the same times.
RankClasses ranks_collapsed(std::span<const double> slowdowns, int group);

}  // namespace ashlar::simulate
