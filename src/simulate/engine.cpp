#include "simulate/engine.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "ashlar/error.hpp"
#include "simulate/flights.hpp"

namespace ashlar::simulate {
namespace {

using Picoseconds = std::int64_t;

Picoseconds rounded(double time) { return std::llround(time); }

class Engine {
 public:
  Engine(const Workload& workload, std::span<const RankClass> classes, const Watcher& watcher,
         const Jitter& jitter)
      : workload_(workload),
        classes_(classes),
        watcher_(watcher),
        jitter_(jitter),
        times_(classes.size()),
        stretch_(1 + workload.overlap_slowdown),
        meetings_(meetings_of(classes)),
        apart_(meetings_.size() > 1),
        flights_(apart_ ? classes.size() : 1) {}

  StepTimes run() {
    require_bounded();
    section(0, workload_.body_first);
    for (std::int64_t i = 0; i < workload_.repeats; ++i)
      section(workload_.body_first, workload_.body_last);
    section(workload_.body_last, static_cast<int>(workload_.tasks.size()));
    StepTimes result;
    for (const ClassTimes& times : times_) result.end = std::max(result.end, times.end);
    result.classes = std::move(times_);
    result.in_flight = in_flight_;
    return result;
  }

 private:
  void require_bounded() const {
    const auto repeats = [&](std::size_t t) {
      const bool body = t >= static_cast<std::size_t>(workload_.body_first) &&
                        t < static_cast<std::size_t>(workload_.body_last);
      return body ? static_cast<double>(workload_.repeats) : 1.0;
    };
    double slowest = 1, picoseconds = 0, moves = 0, open = 0;
    for (const RankClass& ranks : classes_) slowest = std::max(slowest, ranks.slowdown);
    for (std::size_t t = 0; t < workload_.tasks.size(); ++t) {
      const Task& task = workload_.tasks[t];
      double longest = static_cast<double>(task.picoseconds) * slowest * stretch_;
      longest *= jitter_.factor.most();
      if (task.kind == Task::Kind::start) {
        const auto call = static_cast<std::size_t>(task.collective);
        longest = static_cast<double>(workload_.collectives[call].picoseconds);
      }
      picoseconds += repeats(t) * longest;
      if (task.kind == Task::Kind::start) ++open;
      if (task.kind == Task::Kind::wait) open = std::max(0.0, open - 1);
      const auto draws = static_cast<double>(jitter_.factor.varies() ? kernels_of(task) : 1);
      moves += repeats(t) * (draws + open) * static_cast<double>(classes_.size());
    }
    if (picoseconds > 1e18) {
      throw InvalidArgument(fmt::format("a step of up to {:.3g} days: at most 11 can be simulated",
                                        picoseconds / 1e12 / 86400));
    }
    if (moves > 2e10) {
      throw InvalidArgument(fmt::format(
          "{:.3g} moves of clocks: take fewer micro-batches (--accumulate), or collapse ranks",
          moves));
    }
  }

  void section(int first, int last) {
    for (int t = first; t < last; ++t) {
      const Task& task = workload_.tasks[static_cast<std::size_t>(t)];
      switch (task.kind) {
        case Task::Kind::compute:
          compute(task);
          break;
        case Task::Kind::start:
          start(task);
          break;
        case Task::Kind::wait:
          wait(task);
          break;
        case Task::Kind::copy:
          copy(task);
          break;
      }
    }
  }

  void compute(const Task& task) {
    for (std::size_t c = 0; c < times_.size(); ++c) {
      ClassTimes& times = times_[c];
      const Picoseconds begin = times.end;
      const double slowed = work_of(task, c) * classes_[c].slowdown;
      times.end = advance(c, begin, rounded(slowed));
      times.busy += times.end - begin;
      watch({&task, static_cast<int>(c), begin, times.end});
    }
    computed_ += kernels_of(task);
  }

  void copy(const Task& task) {
    for (std::size_t c = 0; c < times_.size(); ++c) {
      ClassTimes& times = times_[c];
      watch({&task, static_cast<int>(c), times.end, times.end + task.picoseconds});
      times.end += task.picoseconds;
      times.copies += task.picoseconds;
    }
  }

  /// Where kernels are not told apart, all of a task are one.
  static std::uint64_t kernels_of(const Task& task) {
    return static_cast<std::uint64_t>(std::max(1, task.last_step - task.first_step));
  }

  double work_of(const Task& task, std::size_t c) const {
    if (!jitter_.factor.varies()) return static_cast<double>(task.picoseconds);
    const auto drawn = [&](Picoseconds work, std::uint64_t n) {
      return static_cast<double>(work) * jitter_.factor(philox(jitter_.seed, c, computed_ + n));
    };
    if (task.first_step == task.last_step) return drawn(task.picoseconds, 0);
    double sum = 0;
    for (std::uint64_t n = 0; n < kernels_of(task); ++n)
      sum += drawn(workload_.step_picoseconds[static_cast<std::size_t>(task.first_step) + n], n);
    return sum;
  }

  /// When `work` that begins at `now` is done: slower while a collective is in flight.
  Picoseconds advance(std::size_t c, Picoseconds now, Picoseconds work) const {
    if (stretch_ == 1) return now + work;
    while (true) {
      const Flights::Interval beside = flights_.busy(lane(c), now);
      if (beside.empty() || work <= beside.begin - now) return now + work;
      work -= beside.begin - now;
      now = beside.begin;
      const auto done = static_cast<Picoseconds>(static_cast<double>(beside.end - now) / stretch_);
      if (work <= done) return now + rounded(static_cast<double>(work) * stretch_);
      work -= done;
      now = beside.end;
    }
  }

  /// Ranks that all meet in the same collectives have the same flights.
  std::size_t lane(std::size_t c) const { return apart_ ? c : 0; }

  static std::vector<Picoseconds> meetings_of(std::span<const RankClass> classes) {
    int most = 0;
    for (const RankClass& ranks : classes) most = std::max({most, ranks.group, ranks.position});
    return std::vector<Picoseconds>(static_cast<std::size_t>(most) + 1);
  }

  /// Where a class meets others in a collective: index into meetings_.
  std::size_t meeting(const CollectiveCall& call, std::size_t c) const {
    if (call.among == Among::world) return 0;
    const RankClass& ranks = classes_[c];
    return static_cast<std::size_t>(call.among == Among::shards ? ranks.group : ranks.position);
  }

  void start(const Task& task) {
    const CollectiveCall& call = workload_.collectives[static_cast<std::size_t>(task.collective)];
    if (const std::size_t again = flights_.find(task.collective); again < flights_.open_calls())
      flights_.close(again);
    std::ranges::fill(meetings_, 0);
    const std::size_t before = flights_.last_of(call.stream);
    const bool queues = before < flights_.open_calls();
    for (std::size_t c = 0; c < times_.size(); ++c) {
      Picoseconds& ready = meetings_[meeting(call, c)];
      const Picoseconds free = queues ? flights_.flight(before, lane(c)).end : 0;
      ready = std::max({ready, times_[c].end, free});
    }
    flights_.open(task.collective, call.stream, call.picoseconds);
    const std::size_t lanes = apart_ ? times_.size() : 1;
    for (std::size_t l = 0; l < lanes; ++l) flights_.depart(l, meetings_[meeting(call, l)]);
    in_flight_ += call.picoseconds;
  }

  void wait(const Task& task) {
    const std::size_t at = flights_.find(task.collective);
    if (at == flights_.open_calls()) return;  // all have waited already
    const CollectiveCall& call = workload_.collectives[static_cast<std::size_t>(task.collective)];
    std::ranges::fill(meetings_, 0);
    for (std::size_t c = 0; c < times_.size(); ++c) {
      Picoseconds& done = meetings_[meeting(call, c)];
      done = std::max(done, flights_.flight(at, lane(c)).end);
    }
    for (std::size_t c = 0; c < times_.size(); ++c) {
      const Flights::Interval flight = flights_.flight(at, lane(c));
      watch({&task, static_cast<int>(c), flight.begin, flight.end, true});
      const Picoseconds done = meetings_[meeting(call, c)];
      ClassTimes& times = times_[c];
      if (times.end >= done) continue;
      watch({&task, static_cast<int>(c), times.end, done});
      times.waits[static_cast<std::size_t>(call.kind)] += done - times.end;
      times.end = done;
    }
    flights_.close(at);
  }

  void watch(const Span& span) const {
    if (watcher_) watcher_(span);
  }

  const Workload& workload_;
  std::span<const RankClass> classes_;
  const Watcher& watcher_;
  const Jitter& jitter_;
  std::vector<ClassTimes> times_;
  double stretch_;                     // of kernels beside a collective
  std::vector<Picoseconds> meetings_;  // by group, by position, or of all
  bool apart_;                         // each class has flights of its own
  Flights flights_;
  Picoseconds in_flight_ = 0;   // the sum of all collectives' times
  std::uint64_t computed_ = 0;  // kernels so far
};

}  // namespace

StepTimes run(const Workload& workload, std::span<const RankClass> classes, const Watcher& watcher,
              const Jitter& jitter) {
  return Engine(workload, classes, watcher, jitter).run();
}

}  // namespace ashlar::simulate
