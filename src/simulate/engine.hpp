// The clocks of all ranks of a step. No event heap: instruction by instruction, each class of equal
// ranks moves its clock on (maximum, add); a collective is a maximum over those who meet in it:
// all, a sharding group, or the ranks of one position in all groups. Times are whole picoseconds,
// so ranks that behave alike have the same clock whether they are kept apart or not.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "simulate/distribution.hpp"
#include "simulate/workload.hpp"

namespace ashlar::simulate {

/// Ranks whose kernels all take `slowdown` times the priced time.
struct RankClass {
  std::int64_t ranks = 1;
  double slowdown = 1;
  int group = 0;     // of shards; classes that stand for several groups meet in each of them
  int position = 0;  // in the group
};

struct ClassTimes {
  std::int64_t end = 0;                 // when the last instruction is done, in picoseconds
  std::int64_t busy = 0;                // kernels
  std::array<std::int64_t, 3> waits{};  // for collectives, by CollectiveKind
  std::int64_t copies = 0;              // of data inputs, which kernels wait for
  std::int64_t exposed() const { return waits[0] + waits[1] + waits[2]; }
  bool operator==(const ClassTimes&) const = default;
};

struct StepTimes {
  std::vector<ClassTimes> classes;  // as given
  std::int64_t end = 0;             // of the last rank
  std::int64_t in_flight = 0;       // of a rank: time in which a collective moved
};

/// What happened when, for traces: compute tasks, copies and waits, and flights of collectives,
/// known at the first wait for them.
struct Span {
  const Task* task;
  int rank_class;
  std::int64_t begin, end;
  bool flight = false;
};
using Watcher = std::function<void(const Span&)>;

/// Noise on kernels: the n-th kernel of class c takes a factor as long that is drawn by Philox from
/// (seed, c, n). Only classes of one rank make sense.
struct Jitter {
  Distribution factor;
  std::uint64_t seed = 0;
};

/// Collectives run on streams of their own (CollectiveCall::stream), one after the other on each,
/// begin when every rank of theirs has arrived and has its stream free, and are done when the last
/// of these ranks has its part. O(tasks x classes).
/// @throws InvalidArgument for a step of more than a million seconds, whose picoseconds would not
/// fit, or one that takes more than 2e10 moves of a clock.
StepTimes run(const Workload& workload, std::span<const RankClass> classes,
              const Watcher& watcher = {}, const Jitter& jitter = {});

}  // namespace ashlar::simulate
