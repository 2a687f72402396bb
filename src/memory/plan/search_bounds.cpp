// Lower bounds on offsets, the conflicts that they end in, and what each conflict rests on.
#include <algorithm>

#include "memory/plan/search.hpp"

namespace ashlar::plan {

void Search::forget_changes() {
  first_changed_ = problem_.sections;
  last_changed_ = 0;
}

void Search::touch(int id) {
  first_changed_ = std::min(first_changed_, item(id).first);
  last_changed_ = std::max(last_changed_, item(id).last);
}

/// @return false with its `reason`: some item or section has no room left
bool Search::propagate(Bits& reason) {
  return tighten(reason) && (first_changed_ >= last_changed_ || stack_sections(reason));
}

bool Search::tighten(Bits& reason) {
  for (bool changed = true; changed;) {
    changed = false;
    for (int i = 0; i < count(); ++i) {
      if (!slot(i).open) continue;
      if (slot(i).delayed && !supported(i, reason)) return false;
      const std::int64_t lowest = bound(i);
      if (lowest == slot(i).lowest) continue;
      save(i);
      slot(i).lowest = lowest;
      touch(i);
      changed = true;
    }
  }
  return true;
}

/// A delayed item that nothing can come to lie under could be lowered onto its floor: packings that
/// cannot be lowered are enough.
bool Search::supported(int id, Bits& reason) {
  const std::int64_t top = slot(id).floor + item(id).size;
  for (const int k : meeting(id))
    if (slot(k).open && slot(k).lowest < top) return true;
  reason.clear();
  reason.set(id);
  reason |= meets(id);
  close(reason);
  return false;
}

/// A delayed item rests on one that is open now; of twins the first lies lower.
std::int64_t Search::bound(int id) const {
  std::int64_t lowest = slot(id).lowest;
  if (slot(id).delayed) {
    std::int64_t support = kNone;
    for (const int k : meeting(id))
      if (slot(k).open) support = std::min(support, slot(k).lowest + item(k).size);
    lowest = std::max(lowest, support);
  }
  if (const int twin = twin_[static_cast<std::size_t>(id)]; twin >= 0 && slot(twin).open)
    lowest = std::max(lowest, slot(twin).lowest + item(id).size);
  return lowest;
}

/// Each changed section alone: its open items stacked in order of their lowest offsets.
bool Search::stack_sections(Bits& reason) {
  stack_.clear();
  for (int i = 0; i < count(); ++i)
    if (slot(i).open && item(i).first < last_changed_ && item(i).last > first_changed_)
      stack_.emplace_back(slot(i).lowest, i);
  std::sort(stack_.begin(), stack_.end());
  std::fill(top_.begin() + first_changed_, top_.begin() + last_changed_, 0);
  std::fill(base_.begin() + first_changed_, base_.begin() + last_changed_, 0);
  for (const auto& [lowest, id] : stack_) {
    const int last = std::min(item(id).last, last_changed_);
    for (int s = std::max(item(id).first, first_changed_); s < last; ++s) {
      const auto at = static_cast<std::size_t>(s);
      if (lowest > top_[at]) top_[at] = base_[at] = lowest;
      top_[at] += item(id).size;
      if (top_[at] <= capacity_) continue;
      explain_stack(s, id, reason);
      return false;
    }
  }
  return true;
}

/// The items above the last gap, up to the one that overflows.
void Search::explain_stack(int section, int last, Bits& reason) {
  reason.clear();
  for (const auto& [lowest, id] : stack_) {
    if (lowest >= base_[static_cast<std::size_t>(section)] && item(id).first <= section &&
        section < item(id).last)
      reason.set(id);
    if (id == last) break;
  }
  close(reason);
}

/// A bound above an item's floor comes from the items that it meets.
void Search::close(Bits& reason) const {
  for (bool changed = true; changed;) {
    changed = false;
    for (int i = 0; i < count(); ++i) {
      if (!reason.test(i) || !slot(i).open || slot(i).free()) continue;
      changed |= reason.add(meets(i));
    }
  }
}

}  // namespace ashlar::plan
