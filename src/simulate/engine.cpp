#include "simulate/engine.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "ashlar/error.hpp"

namespace ashlar::simulate {
namespace {

using Picoseconds = std::int64_t;

class Engine {
 public:
  Engine(const Workload& workload, std::span<const RankClass> classes, const Watcher& watcher,
         const Jitter& jitter)
      : workload_(workload),
        classes_(classes),
        watcher_(watcher),
        jitter_(jitter),
        times_(classes.size()),
        next_(classes.size(), 0),
        stretch_(1 + workload.overlap_slowdown),
        flights_(workload.collectives.size(), stretch_ != 1),
        told_(workload.collectives.size(), true) {}

  StepTimes run() {
    require_bounded();
    section(0, workload_.body_first);
    for (std::int64_t i = 0; i < workload_.repeats; ++i)
      section(workload_.body_first, workload_.body_last);
    section(workload_.body_last, static_cast<int>(workload_.tasks.size()));
    StepTimes result;
    for (const ClassTimes& times : times_) result.end = std::max(result.end, times.end);
    result.classes = std::move(times_);
    result.in_flight = flights_.in_flight();
    return result;
  }

 private:
  void require_bounded() const {
    const auto repeats = [&](std::size_t t) {
      const bool body = t >= static_cast<std::size_t>(workload_.body_first) &&
                        t < static_cast<std::size_t>(workload_.body_last);
      return body ? static_cast<double>(workload_.repeats) : 1.0;
    };
    double slowest = 1, picoseconds = 0, moves = 0;
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
      const auto draws = static_cast<double>(jitter_.factor.varies() ? kernels_of(task) : 1);
      moves += repeats(t) * draws * static_cast<double>(classes_.size());
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
      }
    }
  }

  void compute(const Task& task) {
    for (std::size_t c = 0; c < times_.size(); ++c) {
      ClassTimes& times = times_[c];
      const Picoseconds begin = times.end;
      const double slowed = work_of(task, c) * classes_[c].slowdown;
      times.end = advance(c, begin, static_cast<Picoseconds>(slowed + 0.5));
      times.busy += times.end - begin;
      watch(task, static_cast<int>(c), begin, times.end);
    }
    computed_ += kernels_of(task);
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
  Picoseconds advance(std::size_t c, Picoseconds now, Picoseconds work) {
    if (stretch_ == 1) return now + work;
    std::size_t& next = next_[c];
    const auto busy = flights_.busy();
    while (next < busy.size()) {
      const Flights::Interval& beside = busy[next];
      if (beside.end <= now) {
        ++next;
        continue;
      }
      const Picoseconds alone = std::max<Picoseconds>(beside.begin - now, 0);
      if (work <= alone) break;
      work -= alone;
      now += alone;
      const auto done = static_cast<Picoseconds>(static_cast<double>(beside.end - now) / stretch_);
      if (work <= done) return now + std::llround(static_cast<double>(work) * stretch_);
      work -= done;
      now = beside.end;
    }
    return now + work;
  }

  void start(const Task& task) {
    Picoseconds now = 0;
    for (const ClassTimes& times : times_) now = std::max(now, times.end);
    const auto index = static_cast<std::size_t>(task.collective);
    const CollectiveCall& call = workload_.collectives[index];
    flights_.start(task.collective, call.stream, call.picoseconds, now);
    told_[index] = false;
  }

  void wait(const Task& task) {
    const auto call = static_cast<std::size_t>(task.collective);
    const Picoseconds done = flights_.end(task.collective);
    if (!told_[call]) watch(task, -1, flights_.begin(task.collective), done);
    told_[call] = true;
    const auto kind = static_cast<std::size_t>(workload_.collectives[call].kind);
    for (std::size_t c = 0; c < times_.size(); ++c) {
      ClassTimes& times = times_[c];
      if (times.end >= done) continue;
      watch(task, static_cast<int>(c), times.end, done);
      times.waits[kind] += done - times.end;
      times.end = done;
    }
  }

  void watch(const Task& task, int rank_class, Picoseconds begin, Picoseconds end) const {
    if (watcher_) watcher_({&task, rank_class, begin, end});
  }

  const Workload& workload_;
  std::span<const RankClass> classes_;
  const Watcher& watcher_;
  const Jitter& jitter_;
  std::vector<ClassTimes> times_;
  std::vector<std::size_t> next_;  // by class: the first busy interval that may lie ahead
  double stretch_;                 // of kernels beside a collective
  Flights flights_;
  std::vector<bool> told_;      // by collective: whether the watcher has heard of its last start
  std::uint64_t computed_ = 0;  // kernels so far
};

}  // namespace

StepTimes run(const Workload& workload, std::span<const RankClass> classes, const Watcher& watcher,
              const Jitter& jitter) {
  return Engine(workload, classes, watcher, jitter).run();
}

}  // namespace ashlar::simulate
