#include "sharding/shard_pass.hpp"

#include <fmt/format.h>

#include <map>
#include <set>

#include "ashlar/error.hpp"
#include "ashlar/op.hpp"
#include "ashlar/ops.hpp"
#include "graph/copy.hpp"
#include "sharding/collective_ops.hpp"
#include "sharding/flat_states.hpp"
#include "sharding/gradient_path.hpp"

namespace ashlar {
namespace {

/// Copies the nodes of a graph and replaces parameters by views of flats: whole states at stages 0
/// to 2, gathered anew for each run of nodes of one unit at stage 3.
class Sharder {
 public:
  Sharder(const Graph& graph, const FlatLayout& layout, const ShardOptions& options)
      : from_(graph),
        layout_(layout),
        options_(options),
        states_(out_, layout, options),
        gradients_(out_, graph, layout, options, states_),
        mapped_(graph.values.size()) {
    out_.graph().units = graph.units;
    out_.graph().parameters = graph.parameters;
    for (const auto& [name, id] : graph.outputs) {
      if (name.starts_with(gradient_name(""))) gradient_of_.emplace(id, name);
    }
  }

  Graph run() {
    for (const ValueId id : from_.inputs) {
      copy_input(id);
      note_gradient(id);  // of a parameter that the loss is linear in
    }
    for (const Node& node : from_.nodes) copy(node);
    const bool training = !gradient_of_.empty();
    if (training) gradients_.finish_backward();
    out_.set_micro_batch(0);
    finish_loss();
    if (training) out_.output("grad_norm", gradients_.finish());
    for (const auto& [name, id] : from_.outputs) {
      if (name != kLoss && !gradient_of_.contains(id)) out_.output(name, mapped_[index(id)]);
    }
    return std::move(out_.graph());
  }

 private:
  static std::size_t index(ValueId id) { return static_cast<std::size_t>(id); }

  int ranks() const { return layout_.ranks() * options_.replicas; }

  void copy_input(ValueId id) {
    const ValueInfo& value = from_[id];
    if (value.input == InputKind::parameter) return;
    if (value.name == kLossCotangent) {
      const double share = 1.0 / static_cast<double>(ranks() * options_.micro_batches);
      mapped_[index(id)] = constant(out_, share, value.type.dtype, value.type.shape);
    } else {
      mapped_[index(id)] = ashlar::copy_input(out_, value);
    }
  }

  void copy(const Node& node) {
    if (node.unit >= 0 && node.unit != run_unit_) {
      run_unit_ = node.unit;
      if (options_.zero.stage == 3 && options_.zero.reshard_after_forward) forget_parameters();
    }
    out_.set_unit(node.unit);
    out_.set_backward(node.backward);
    out_.set_micro_batch(node.micro_batch);
    std::vector<Value> inputs;
    for (const ValueId id : node.inputs) inputs.push_back(id == kNoValue ? Value() : value(id));
    const auto outputs = copy_node(out_, from_, node, inputs);
    for (std::size_t i = 0; i < outputs.size(); ++i) {
      mapped_[index(node.outputs[i])] = outputs[i];
      note_gradient(node.outputs[i]);
    }
  }

  /// The value in the new graph; parameters and views of parameters are made anew for each run.
  Value value(ValueId id) {
    Value& known = mapped_[index(id)];
    if (known) return known;
    if (from_[id].input == InputKind::parameter) {
      known = parameter(from_[id].parameter);
      of_parameters_.insert(id);
    } else {
      const Node& node = from_.nodes[index(from_[id].producer)];
      const Value input = value(node.inputs[0]);
      known = out_.apply(*node.op, {&input, 1}, node.attributes, node.where)[0];
    }
    return known;
  }

  Value parameter(int p) {
    const int f = layout_.flat_of(p);
    if (options_.zero.stage == 3 && !gathered_.contains(f))
      gather_unit(layout_.flats()[static_cast<std::size_t>(f)].unit);
    const Value whole = options_.zero.stage == 3 ? gathered_.at(f) : states_.parameter(f);
    return slice_flat(whole, layout_.entry_of(p).begin,
                      layout_.parameters()[static_cast<std::size_t>(p)].shape);
  }

  void gather_unit(int unit) {
    std::vector<Value> shards;
    std::vector<int> flats;
    for (int f = 0; f < static_cast<int>(layout_.flats().size()); ++f) {
      if (layout_.flats()[static_cast<std::size_t>(f)].unit != unit) continue;
      flats.push_back(f);
      shards.push_back(states_.parameter(f));
    }
    const auto wholes = gather(out_, shards, layout_.ranks(), true);
    for (std::size_t i = 0; i < flats.size(); ++i) gathered_[flats[i]] = wholes[i];
  }

  void forget_parameters() {
    gathered_.clear();
    for (const ValueId id : of_parameters_) mapped_[index(id)] = {};
    for (const ValueId id : views_of_parameters()) mapped_[index(id)] = {};
    of_parameters_.clear();
  }

  /// Values that are views of parameters, by way of views alone.
  const std::vector<ValueId>& views_of_parameters() {
    if (scanned_) return parameter_views_;
    scanned_ = true;
    std::set<ValueId> roots;
    for (const ValueId id : from_.inputs) {
      if (from_[id].input == InputKind::parameter) roots.insert(id);
    }
    for (const Node& node : from_.nodes) {
      if (node.op->view == nullptr || !roots.contains(node.inputs[0])) continue;
      roots.insert(node.outputs[0]);
      parameter_views_.push_back(node.outputs[0]);
    }
    return parameter_views_;
  }

  void note_gradient(ValueId id) {
    const auto [begin, end] = gradient_of_.equal_range(id);
    for (auto entry = begin; entry != end; ++entry) {
      gradients_.ready(std::string_view(entry->second).substr(gradient_name("").size()),
                       mapped_[index(id)]);
    }
  }

  /// The mean over micro-batches and ranks.
  void finish_loss() {
    const ValueId id = from_.output(kLoss);
    if (id == kNoValue) return;
    out_.set_unit(-1);
    out_.set_backward(false);
    Value sum = mapped_[index(id)];
    if (options_.micro_batches > 1 && !options_.layer_order) {
      sum = accumulate(out_.state("loss_sum", sum.dtype(), sum.shape(), Category::activation), sum);
    }
    out_.set_section(Section::update);
    const Value total = all_reduce(sum, ranks());
    out_.graph()[total.id()].name = kLoss;
    const double share = 1.0 / static_cast<double>(ranks() * options_.micro_batches);
    out_.output(std::string(kLoss), scale(total, share));
  }

  const Graph& from_;
  const FlatLayout& layout_;
  const ShardOptions& options_;
  Tracer out_;
  FlatStates states_;
  GradientPath gradients_;
  std::vector<Value> mapped_;                        // by ValueId of from_
  std::multimap<ValueId, std::string> gradient_of_;  // by ValueId of from_
  std::map<int, Value> gathered_;                    // by flat
  std::set<ValueId> of_parameters_;
  std::vector<ValueId> parameter_views_;
  bool scanned_ = false;
  int run_unit_ = -1;
};

}  // namespace

std::string gradient_name(std::string_view parameter) {
  return fmt::format("gradient/{}", parameter);
}

std::string state_name(const Flat& flat, std::string_view role) {
  return fmt::format("{}/{}", flat.name, role);
}

bool sums_locally(const ShardOptions& options) {
  return options.micro_batches > 1 && !options.reduce_each;
}

bool keeps_local_sums(const ShardOptions& options) {
  return sums_locally(options) && !options.layer_order;
}

bool keeps_whole_gradients(const ShardOptions& options) {
  return options.zero.stage <= 1 || keeps_local_sums(options);
}

DType local_gradient_dtype(const ShardOptions& options) {
  return sums_locally(options) ? DType::f32 : options.precision.reduce;
}

DType gradient_dtype(const ShardOptions& options) {
  return options.micro_batches > 1 ? DType::f32 : options.precision.parameter;
}

Graph shard(const Graph& graph, const FlatLayout& layout, const ShardOptions& options) {
  if (options.zero.stage < 0 || options.zero.stage > 3) {
    throw InvalidArgument(
        fmt::format("ZeRO stage {} does not exist; use 0, 1, 2 or 3", options.zero.stage));
  }
  return Sharder(graph, layout, options).run();
}

}  // namespace ashlar
