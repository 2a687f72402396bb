// Depth-first search for a packing within a capacity, with conflict-directed backjumping. An item
// that nothing open can come to lie under is put onto its floor, or else must lie above it.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <limits>
#include <span>
#include <vector>

#include "memory/plan/bits.hpp"
#include "memory/plan/problem.hpp"

namespace ashlar::plan {

enum class Outcome { found, exhausted, stopped };

/// Which item comes next: the lowest one anywhere, or one in the section where the fewest could
/// come next.
enum class Rule { lowest, tightest };

class Search {
 public:
  explicit Search(const Problem& problem);

  /// @param rank by item: where the rule leaves a choice, those that took part in conflicts (of
  /// earlier runs too) go first, then lower ranks
  /// @param go_on called now and then with the nodes visited since; false stops
  /// @return found: `offsets()` keep within `capacity`; exhausted: no packing does; stopped: the
  /// limit was reached first
  Outcome run(std::int64_t capacity, Rule rule, std::span<const int> rank, std::int64_t node_limit,
              const std::function<bool(std::int64_t)>& go_on);

  std::vector<std::int64_t> offsets() const;     // by item
  std::int64_t nodes() const { return nodes_; }  // of the last run

 private:
  static constexpr std::int64_t kNone = std::numeric_limits<std::int64_t>::max();

  /// An item. `floor`: top of what was placed below it, its offset once placed. `lowest`: no
  /// completion has it lower. `delayed`: it lies above its floor.
  struct Slot {
    std::int64_t floor = 0;
    std::int64_t lowest = 0;
    bool delayed = false;
    bool open = true;
    bool free() const { return lowest == floor; }
  };
  struct Undo {
    int id;
    Slot slot;
  };
  /// `reason`: items whose bounds alone rule out every completion. `raised`: those whose floors the
  /// level's placement changed.
  struct Level {
    Bits reason, raised;
  };
  struct Section {
    std::int64_t sizes = 0;  // of open items
    int firsts = 0;          // how many of them could be the lowest
    bool used = false;
    std::int64_t lowest = kNone;
  };

  Outcome solve(std::size_t depth);
  void place(int id, Bits& raised);
  void delay(int id);
  void undo(std::size_t mark);
  void learn(const Bits& reason);

  bool propagate(Bits& reason);
  bool tighten(Bits& reason);
  bool supported(int id, Bits& reason);
  std::int64_t bound(int id) const;
  bool stack_sections(Bits& reason);
  void explain_stack(int section, int last, Bits& reason);
  void close(Bits& reason) const;

  int choose();
  int lowest_item() const;
  int tightest_section();
  int local_minimum(int section) const;
  bool better(int id, int than) const;
  bool alone(int id) const;

  void save(int id) { trail_.push_back({id, slot(id)}); }
  void touch(int id);
  void forget_changes();
  Slot& slot(int id) { return slots_[static_cast<std::size_t>(id)]; }
  const Slot& slot(int id) const { return slots_[static_cast<std::size_t>(id)]; }
  const Item& item(int id) const { return problem_.items[static_cast<std::size_t>(id)]; }
  const std::vector<int>& meeting(int id) const { return meeting_[static_cast<std::size_t>(id)]; }
  const Bits& meets(int id) const { return meets_[static_cast<std::size_t>(id)]; }
  int count() const { return static_cast<int>(problem_.items.size()); }
  Level& level(std::size_t depth);

  const Problem& problem_;
  std::vector<int> twin_;  // the previous equal item, or -1
  std::vector<std::vector<int>> meeting_;
  std::vector<Bits> meets_;

  std::int64_t capacity_ = 0, nodes_ = 0, limit_ = 0, reported_ = 0;
  Rule rule_ = Rule::lowest;
  std::span<const int> rank_;
  const std::function<bool(std::int64_t)>* go_on_ = nullptr;

  std::vector<Slot> slots_;
  std::vector<Undo> trail_;
  std::deque<Level> levels_;
  std::vector<double> weight_;  // by item: recent conflicts
  double weight_step_ = 1;
  int first_changed_ = 0, last_changed_ = 0;  // sections
  std::vector<std::pair<std::int64_t, int>> stack_;
  std::vector<std::int64_t> top_, base_;  // by section
  std::vector<Section> sections_;
};

}  // namespace ashlar::plan
