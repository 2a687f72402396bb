#include "memory/plan/search.hpp"

#include <algorithm>

namespace ashlar::plan {

Search::Search(const Problem& problem)
    : problem_(problem),
      twin_(problem.items.size(), -1),
      meeting_(problem.items.size()),
      meets_(problem.items.size(), Bits(problem.items.size())),
      slots_(problem.items.size()),
      weight_(problem.items.size()),
      top_(static_cast<std::size_t>(problem.sections)),
      base_(static_cast<std::size_t>(problem.sections)),
      sections_(static_cast<std::size_t>(problem.sections)) {
  for (int i = 0; i < count(); ++i)
    for (int j = 0; j < count(); ++j) {
      if (i == j || !item(i).meets(item(j))) continue;
      meeting_[static_cast<std::size_t>(i)].push_back(j);
      meets_[static_cast<std::size_t>(i)].set(j);
      if (j < i && item(i) == item(j)) twin_[static_cast<std::size_t>(i)] = j;
    }
}

Search::Level& Search::level(std::size_t depth) {
  while (levels_.size() <= depth)
    levels_.push_back({Bits(problem_.items.size()), Bits(problem_.items.size())});
  return levels_[depth];
}

std::vector<std::int64_t> Search::offsets() const {
  std::vector<std::int64_t> offsets;
  for (const Slot& s : slots_) offsets.push_back(s.floor);
  return offsets;
}

Outcome Search::run(std::int64_t capacity, Rule rule, std::span<const int> rank,
                    std::int64_t node_limit, const std::function<bool(std::int64_t)>& go_on) {
  capacity_ = capacity;
  rule_ = rule;
  rank_ = rank;
  limit_ = node_limit;
  go_on_ = &go_on;
  nodes_ = reported_ = 0;
  trail_.clear();
  std::ranges::fill(slots_, Slot{});
  first_changed_ = 0;
  last_changed_ = problem_.sections;
  return propagate(level(0).reason) ? solve(0) : Outcome::exhausted;
}

Outcome Search::solve(std::size_t depth) {
  constexpr std::int64_t kReportEvery = 16;
  if (++nodes_ > limit_) return Outcome::stopped;
  if (nodes_ - reported_ >= kReportEvery) {
    if (!(*go_on_)(nodes_ - reported_)) return Outcome::stopped;
    reported_ = nodes_;
  }
  const int id = choose();
  if (id < 0) return Outcome::found;
  Level& here = level(depth);
  Level& below = level(depth + 1);
  const bool settled = alone(id);
  const std::size_t mark = trail_.size();

  place(id, here.raised);
  if (propagate(below.reason)) {
    const Outcome outcome = solve(depth + 1);
    if (outcome != Outcome::exhausted) return outcome;
  }
  undo(mark);
  learn(below.reason);
  here.reason = below.reason;
  if (!here.reason.meets(here.raised)) return Outcome::exhausted;
  here.reason.set(id);
  if (settled) here.reason |= meets(id);
  close(here.reason);
  if (settled) return Outcome::exhausted;

  delay(id);
  if (propagate(below.reason)) {
    const Outcome outcome = solve(depth + 1);
    if (outcome != Outcome::exhausted) return outcome;
  }
  undo(mark);
  if (below.reason.test(id)) {
    here.reason |= below.reason;
  } else {
    here.reason = below.reason;
  }
  return Outcome::exhausted;
}

void Search::place(int id, Bits& raised) {
  forget_changes();
  const std::int64_t top = slot(id).floor + item(id).size;
  save(id);
  slot(id).open = false;
  raised.clear();
  raised.set(id);
  for (const int k : meeting(id)) {
    if (!slot(k).open || slot(k).floor >= top) continue;
    save(k);
    raised.set(k);
    if (slot(k).lowest < top) touch(k);
    slot(k) = {top, top, false, true};
  }
}

void Search::delay(int id) {
  forget_changes();
  save(id);
  slot(id).delayed = true;
}

void Search::undo(std::size_t mark) {
  for (; trail_.size() > mark; trail_.pop_back()) slot(trail_.back().id) = trail_.back().slot;
}

void Search::learn(const Bits& reason) {
  constexpr double kGrowth = 1.02, kLargest = 1e100;
  for (int i = 0; i < count(); ++i)
    if (reason.test(i)) weight_[static_cast<std::size_t>(i)] += weight_step_;
  weight_step_ *= kGrowth;
  if (weight_step_ < kLargest) return;
  for (double& weight : weight_) weight /= kLargest;
  weight_step_ /= kLargest;
}

}  // namespace ashlar::plan
