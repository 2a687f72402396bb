#include "graph/reorder.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <numeric>

#include "graph/cost.hpp"
#include "graph/reorder_run.hpp"
#include "graph/storage.hpp"
#include "graph/unit_run.hpp"

namespace ashlar {
namespace {

std::size_t index(std::int64_t i) { return static_cast<std::size_t>(i); }

/// By value: the value whose bytes it is, through views and in-place updates.
std::vector<ValueId> find_roots(const Graph& graph) {
  std::vector<ValueId> roots(graph.values.size());
  std::iota(roots.begin(), roots.end(), 0);
  for (const Node& node : graph.nodes) {
    if (node.op->view != nullptr) roots[index(node.outputs[0])] = roots[index(node.inputs[0])];
    for (const auto& [output, input] : in_place_pairs(node))
      roots[index(node.outputs[index(output)])] = roots[index(node.inputs[index(input)])];
  }
  return roots;
}

class RunBuilder {
 public:
  /// @param scratch by node
  RunBuilder(const Graph& graph, const std::vector<std::int64_t>& scratch)
      : graph_(graph), scratch_(scratch), roots_(find_roots(graph)), last_(graph.values.size()) {
    for (int n = 0; n < static_cast<int>(graph.nodes.size()); ++n) {
      for (const ValueId id : graph.nodes[index(n)].inputs)
        if (id != kNoValue) last_[index(roots_[index(id)])] = n;
    }
    for (const auto& [name, id] : graph.outputs)
      last_[index(roots_[index(id)])] = static_cast<int>(graph.nodes.size());
  }

  Run build(NodeRange nodes) {
    run_ = {nodes, {}, {}, {}, {}};
    numbers_.clear();
    touched_.clear();
    makers_.clear();
    written_.clear();
    for (int n = nodes.first; n < nodes.last; ++n) add(n);
    for (std::size_t b = 0; b < run_.bytes.size(); ++b)
      run_.signature += fmt::format(" {}{}", run_.bytes[b], run_.stays[b] ? "!" : "");
    return std::move(run_);
  }

 private:
  /// Parameters come and go with their unit: not counted.
  bool counts(ValueId root) const { return graph_[root].input != InputKind::parameter; }

  int number(ValueId id) {
    const ValueId root = roots_[index(id)];
    const auto [found, fresh] = numbers_.emplace(root, static_cast<int>(run_.bytes.size()));
    if (fresh) {
      run_.bytes.push_back(counts(root) ? graph_[root].type.bytes() : 0);
      run_.stays.push_back(last_[index(root)] >= run_.nodes.last);
      touched_.emplace_back();
    }
    return found->second;
  }

  void add(int n) {
    const Node& node = graph_.nodes[index(n)];
    const int position = n - run_.nodes.first;
    Member member;
    const auto pairs = in_place_pairs(node);
    for (const ValueId id : node.inputs) {
      if (id == kNoValue) continue;
      const int buffer = number(id);
      if (std::ranges::find(member.reads, buffer) == member.reads.end())
        member.reads.push_back(buffer);
      if (const auto maker = makers_.find(id); maker != makers_.end())
        member.after.push_back(maker->second);
    }
    for (const auto& [output, input] : pairs) {  // all that touched the bytes before come first
      for (const int other : touched_[index(number(node.inputs[index(input)]))])
        member.after.push_back(other);
      written_.insert_or_assign(number(node.inputs[index(input)]), position);
    }
    for (const int buffer : member.reads) {
      if (const auto writer = written_.find(buffer);
          writer != written_.end() && writer->second < position)
        member.after.push_back(writer->second);
      touched_[index(buffer)].push_back(position);
    }
    for (const ValueId id : node.outputs) {
      makers_[id] = position;
      const bool fresh = roots_[index(id)] == id;
      const int buffer = number(id);
      if (fresh) member.makes.push_back(buffer);
      touched_[index(buffer)].push_back(position);
    }
    for (const int i : node.op->may_reuse) {
      if (node.inputs[index(i)] != kNoValue)
        member.may_reuse.push_back(number(node.inputs[index(i)]));
    }
    member.scratch = scratch_[index(n)];
    run_.signature +=
        fmt::format("{} {} {}>{}<{};", node.op->name, member.scratch, fmt::join(member.reads, ","),
                    fmt::join(member.makes, ","), fmt::join(member.after, ","));
    run_.members.push_back(std::move(member));
  }

  const Graph& graph_;
  const std::vector<std::int64_t>& scratch_;
  std::vector<ValueId> roots_;
  std::vector<int> last_;  // by root: the last node that reads it
  Run run_;
  std::map<ValueId, int> numbers_;         // by root
  std::map<ValueId, int> makers_;          // by value: the member of the run
  std::map<int, int> written_;             // by buffer: the last member that updated it in place
  std::vector<std::vector<int>> touched_;  // by buffer: members so far
};

/// By the lifetimes that a Program would have. Runs are judged by what is known of them alone.
std::int64_t largest_load(const Graph& graph, const std::vector<std::int64_t>& scratch) {
  std::vector<Instruction> instructions;
  std::vector<std::int64_t> change(graph.nodes.size() + 1);
  for (std::size_t n = 0; n < graph.nodes.size(); ++n) {
    instructions.push_back({Instruction::Kind::run, static_cast<int>(n)});
    change[n] += scratch[n];
    change[n + 1] -= scratch[n];
  }
  for (const StorageBuffer& buffer : resolve_storage(graph, instructions).buffers) {
    if (buffer.kind == InputKind::parameter || buffer.first < 0) continue;
    change[index(buffer.first)] += buffer.bytes;
    change[std::min(index(buffer.last), graph.nodes.size())] -= buffer.bytes;
  }
  std::int64_t load = 0, largest = 0;
  for (const std::int64_t bytes : change) largest = std::max(largest, load += bytes);
  return largest;
}

}  // namespace

Graph reorder(const Graph& graph, const Backend& backend) {
  std::vector<std::int64_t> scratch, moved;  // by node, before and after
  for (const Node& node : graph.nodes) scratch.push_back(workspace_of(graph, node, backend));
  RunBuilder builder(graph, scratch);
  std::map<std::string, std::vector<int>> known;
  Graph out = graph;
  out.nodes.clear();
  for (int first = 0; first < static_cast<int>(graph.nodes.size());) {
    const int last = end_of_unit_run(graph, first);
    const Run run = builder.build({first, last});
    auto found = known.find(run.signature);
    if (found == known.end()) found = known.emplace(run.signature, lower_order(run)).first;
    for (const int member : found->second) {
      const Node& node = graph.nodes[index(first + member)];
      for (const ValueId id : node.outputs) out[id].producer = static_cast<int>(out.nodes.size());
      out.nodes.push_back(node);
      moved.push_back(scratch[index(first + member)]);
    }
    first = last;
  }
  return largest_load(out, moved) <= largest_load(graph, scratch) ? out : graph;
}

}  // namespace ashlar
