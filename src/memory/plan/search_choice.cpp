// Which item comes next. It must lie no higher than the open items that it meets.
#include <algorithm>
#include <tuple>

#include "memory/plan/search.hpp"

namespace ashlar::plan {

int Search::choose() {
  if (rule_ == Rule::lowest) return lowest_item();
  const int section = tightest_section();
  return section < 0 ? -1 : local_minimum(section);
}

bool Search::better(int id, int than) const {
  if (than < 0) return true;
  const Slot &a = slot(id), &b = slot(than);
  if (a.lowest != b.lowest) return a.lowest < b.lowest;
  if (a.free() != b.free()) return a.free();
  const auto i = static_cast<std::size_t>(id), j = static_cast<std::size_t>(than);
  if (weight_[i] != weight_[j]) return weight_[i] > weight_[j];
  return rank_[i] < rank_[j];
}

int Search::lowest_item() const {
  int best = -1;
  for (int i = 0; i < count(); ++i)
    if (slot(i).open && better(i, best)) best = i;
  return best;
}

/// The section where the fewest items could be the next one, the lowest of such.
int Search::tightest_section() {
  std::ranges::fill(sections_, Section{});
  const auto on_sections = [&](const auto& visit) {
    for (int i = 0; i < count(); ++i) {
      if (!slot(i).open) continue;
      for (int s = item(i).first; s < item(i).last; ++s)
        visit(sections_[static_cast<std::size_t>(s)], i);
    }
  };
  on_sections([&](Section& s, int i) {
    s.sizes += item(i).size;
    s.lowest = std::min(s.lowest, slot(i).lowest);
    s.used = true;
  });
  on_sections(
      [&](Section& s, int i) { s.firsts += slot(i).lowest + s.sizes <= capacity_ ? 1 : 0; });
  int best = -1;
  const auto key = [&](int s) {
    const Section& section = sections_[static_cast<std::size_t>(s)];
    return std::tuple(section.firsts, section.lowest);
  };
  for (int s = 0; s < problem_.sections; ++s)
    if (sections_[static_cast<std::size_t>(s)].used && (best < 0 || key(s) < key(best))) best = s;
  return best;
}

/// From the section's lowest item down to one that meets none lower.
int Search::local_minimum(int section) const {
  int id = -1;
  for (int i = 0; i < count(); ++i)
    if (slot(i).open && item(i).first <= section && section < item(i).last && better(i, id)) id = i;
  for (bool moved = true; moved;) {
    const auto lower = [&](int k) {
      const Slot &a = slot(k), &b = slot(id);
      return a.open && (a.lowest < b.lowest || (a.lowest == b.lowest && a.free() && !b.free()));
    };
    const auto below = std::ranges::find_if(meeting(id), lower);
    moved = below != meeting(id).end();
    if (moved) id = *below;
  }
  return id;
}

/// Nothing can come to lie under it.
bool Search::alone(int id) const {
  const std::int64_t top = slot(id).floor + item(id).size;
  return std::ranges::all_of(meeting(id),
                             [&](int k) { return !slot(k).open || slot(k).lowest >= top; });
}

}  // namespace ashlar::plan
