// The load of a joint graph by instant, as it would be were some forward values made again in
// backward: priced value by value, without running the passes.
#pragma once

#include <vector>

#include "ashlar/op.hpp"
#include "graph/load_tree.hpp"
#include "graph/rematerialize.hpp"

namespace ashlar {

/// Instants are the nodes of the graph in their order; what is made again is made right before its
/// first reader in backward. Views count as what they view; in-place reuse is seen in backward
/// only.
class RecomputeLoad {
 public:
  /// @param gathers parameters come and go with the runs of their units (ZeRO stage 3)
  RecomputeLoad(const Graph& graph, const Backend& backend, bool gathers);

  /// True where backward may make the value again: no reader in backward is of another unit.
  bool candidate(ValueId id) const { return entries_[index(id)].candidate; }
  int unit(ValueId id) const { return graph_.nodes[index(graph_[id].producer)].unit; }
  const Remade& remade() const { return remade_; }
  /// Makes a value again, or keeps it.
  void set(ValueId id, bool again);

  std::int64_t peak() const { return tree_.maximum(); }
  int peak_instant() const { return tree_.peak(); }
  std::int64_t at(int instant) const { return tree_.at(instant); }
  /// True when the value lives at that instant for backward's sake alone.
  bool kept_over(ValueId id, int instant) const;
  /// What making the value again would read, and nothing else keeps until then.
  std::vector<ValueId> extended(ValueId id) const;
  /// Operations that all that is made again adds to a step.
  double flops() const { return flops_; }

 private:
  /// What is known of a value from the graph alone.
  struct Entry {
    std::int64_t bytes = 0;
    int born = -1;  // -1: a parameter, an input, a view
    int last_forward = -1;
    int first_backward = 0, last_backward = -1;
    bool candidate = false;
    std::vector<ValueId> readers;   // forward values of its unit that may be made of it
    std::vector<ValueId> operands;  // that its maker reads
    std::vector<ValueId> rebuild_operands;
    double flops = 0, rebuild_flops = 0;
  };

  static std::size_t index(std::int64_t i) { return static_cast<std::size_t>(i); }
  const Node& maker(ValueId id) const { return graph_.nodes[index(graph_[id].producer)]; }
  void find_roots();
  void find_readers();
  void find_reuse();
  void find_operands(ValueId id);
  void add_workspaces(const Backend& backend);
  void add_gathers();
  double flops_again(const Node& node) const;
  const std::vector<ValueId>& operands(ValueId id) const;
  bool reads(ValueId reader, ValueId id) const;
  int needed_from(ValueId id) const;
  int needed_until(ValueId id) const;
  void count(ValueId id, std::int64_t sign);
  void add_affected(ValueId id, std::vector<ValueId>& affected) const;

  const Graph& graph_;
  std::vector<ValueId> roots_;  // by value: what a view views in the end
  std::vector<Entry> entries_;  // by value
  Remade remade_;
  LoadTree tree_;
  double flops_ = 0;
};

}  // namespace ashlar
