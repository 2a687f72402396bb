#include "simulate/engine.hpp"

#include <algorithm>
#include <cmath>

namespace ashlar::simulate {
namespace {

using Picoseconds = std::int64_t;

struct Interval {
  Picoseconds begin, end;
};

class Engine {
 public:
  Engine(const Workload& workload, std::span<const RankClass> classes, const Watcher& watcher)
      : workload_(workload),
        classes_(classes),
        watcher_(watcher),
        times_(classes.size()),
        next_(classes.size(), 0),
        end_of_(workload.collectives.size(), 0),
        slowdown_(std::llround(workload.overlap_slowdown * kUnit)) {}

  StepTimes run() {
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
  static constexpr std::int64_t kUnit = 65536;  // of slowdown_

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
    const auto work = static_cast<double>(task.picoseconds);
    for (std::size_t c = 0; c < times_.size(); ++c) {
      ClassTimes& times = times_[c];
      const Picoseconds begin = times.end;
      times.end = advance(c, begin, static_cast<Picoseconds>(work * classes_[c].slowdown + 0.5));
      times.busy += times.end - begin;
      watch(task, static_cast<int>(c), begin, times.end);
    }
  }

  /// When `work` that begins at `now` is done: slower while a collective is in flight.
  Picoseconds advance(std::size_t c, Picoseconds now, Picoseconds work) {
    if (slowdown_ == 0) return now + work;
    std::size_t& next = next_[c];
    while (next < busy_.size()) {
      const Interval& beside = busy_[next];
      if (beside.end <= now) {
        ++next;
        continue;
      }
      const Picoseconds alone = std::max<Picoseconds>(beside.begin - now, 0);
      if (work <= alone) break;
      work -= alone;
      now += alone;
      const Picoseconds done = (beside.end - now) * kUnit / (kUnit + slowdown_);
      if (work <= done) return now + work + work * slowdown_ / kUnit;
      work -= done;
      now = beside.end;
    }
    return now + work;
  }

  void start(const Task& task) {
    Picoseconds begin = stream_;
    for (const ClassTimes& times : times_) begin = std::max(begin, times.end);
    const auto call = static_cast<std::size_t>(task.collective);
    stream_ = begin + workload_.collectives[call].picoseconds;
    end_of_[call] = stream_;
    in_flight_ += stream_ - begin;
    if (slowdown_ != 0 && stream_ > begin) busy_.push_back({begin, stream_});
    watch(task, -1, begin, stream_);
  }

  void wait(const Task& task) {
    const Picoseconds done = end_of_[static_cast<std::size_t>(task.collective)];
    for (std::size_t c = 0; c < times_.size(); ++c) {
      ClassTimes& times = times_[c];
      if (times.end >= done) continue;
      watch(task, static_cast<int>(c), times.end, done);
      times.exposed += done - times.end;
      times.end = done;
    }
  }

  void watch(const Task& task, int rank_class, Picoseconds begin, Picoseconds end) const {
    if (watcher_) watcher_({&task, rank_class, begin, end});
  }

  const Workload& workload_;
  std::span<const RankClass> classes_;
  const Watcher& watcher_;
  std::vector<ClassTimes> times_;
  std::vector<std::size_t> next_;    // by class: the first of busy_ that may lie ahead
  std::vector<Interval> busy_;       // collectives in flight, one after the other
  std::vector<Picoseconds> end_of_;  // by collective
  std::int64_t slowdown_;            // by overlap, in units of 1 / kUnit
  Picoseconds stream_ = 0;           // when the communication stream is free
  Picoseconds in_flight_ = 0;
};

}  // namespace

StepTimes run(const Workload& workload, std::span<const RankClass> classes,
              const Watcher& watcher) {
  return Engine(workload, classes, watcher).run();
}

}  // namespace ashlar::simulate
