// Runs a Graph node by node: every value in an allocation of its own, freed by counting references
// at run time. It knows neither liveness nor the plan.
#pragma once

#include <memory>
#include <vector>

#include "ashlar/buffer.hpp"
#include "ashlar/op.hpp"

namespace ashlar {

/// Copyable in mid-run: copies share the memory of what is alive and go on independently.
class Evaluation {
 public:
  struct Options {
    RunContext context = {};
    MemoryResource* memory = &host_memory();  // of every intermediate, with its category
    Backend backend = {};
    bool poison = false;  // new memory is NaN: an output that is not written shows
  };

  /// `graph` outlives it.
  Evaluation(const Graph& graph, const Options& options);

  /// Gives an input. Without an owner its memory outlives the evaluation.
  void bind(ValueId id, const TensorView& view, std::shared_ptr<const Buffer> owner = {});
  /// Runs a node whose inputs are there. `plan`: what its op prepared, or null to prepare it now.
  void run(const Node& node, const void* plan = nullptr);
  /// Takes the results of a node from another evaluation of the graph that has just run it.
  void share(const Node& node, const Evaluation& other);

  const TensorView& view(ValueId id) const { return views_[index(id)]; }
  /// One of the uses that the graph's outputs are: the value, which may die here.
  std::pair<TensorView, std::shared_ptr<const Buffer>> take(ValueId id);

 private:
  static std::size_t index(ValueId id) { return static_cast<std::size_t>(id); }
  std::shared_ptr<const Buffer> allocate(std::int64_t bytes, Category category) const;
  void make_view(const Node& node, const TensorView& input);
  void run_kernel(const Node& node, const std::vector<TensorView>& inputs, const void* plan);
  TensorView make_output(const Node& node, int output, const std::vector<TensorView>& inputs);
  void release_uses(const Node& node);

  const Graph* graph_;
  Options options_;
  std::vector<TensorView> views_;
  std::vector<std::shared_ptr<const Buffer>> owners_;
  std::vector<int> uses_;
};

}  // namespace ashlar
