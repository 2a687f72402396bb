#include "simulate/workload.hpp"

#include <fmt/format.h>

#include <utility>

#include "ashlar/error.hpp"
#include "ashlar/op.hpp"
#include "simulate/op_time.hpp"
#include "simulate/tiles.hpp"

namespace ashlar::simulate {
namespace {

CollectiveKind kind_of(const Node& node) {
  if (node.op->name.starts_with("gather")) return CollectiveKind::all_gather;
  if (node.op->name.starts_with("reduce_scatter")) return CollectiveKind::reduce_scatter;
  if (node.op->name.starts_with("all_reduce")) return CollectiveKind::all_reduce;
  throw Error(fmt::format("the simulator knows no collective '{}'", node.op->name));
}

/// What travels: everybody's part of a gather, else what goes in.
std::int64_t wire_bytes(const Graph& graph, const Node& node, CollectiveKind kind) {
  std::int64_t bytes = 0;
  if (kind == CollectiveKind::all_gather) {
    for (const ValueId id : node.outputs) bytes += graph[id].type.bytes();
  } else if (kind == CollectiveKind::reduce_scatter) {
    for (std::size_t i = 0; i < node.inputs.size() - in_place_pairs(node).size(); ++i)
      bytes += graph[node.inputs[i]].type.bytes();
  } else {
    bytes = graph[node.inputs[0]].type.bytes();
  }
  return bytes;
}

class Pricer {
 public:
  Pricer(const Program& program, std::int64_t micro_batches, int ranks, const Cluster& cluster,
         const Pricing& pricing)
      : program_(program), cluster_(cluster), pricing_(pricing) {
    out_.ranks = ranks;
    out_.repeats = micro_batches / program.micro_batches;
    out_.overlap_slowdown = cluster.overlap_slowdown;
    call_of_.assign(program.graph.nodes.size(), -1);
  }

  Workload run() {
    const int end = static_cast<int>(program_.steps.size());
    section(0, program_.body_first, 1);
    out_.body_first = static_cast<int>(out_.tasks.size());
    copy_inputs();
    section(program_.body_first, program_.body_last, out_.repeats);
    out_.body_last = static_cast<int>(out_.tasks.size());
    section(program_.body_last, end, 1);
    return std::move(out_);
  }

 private:
  /// Of the micro-batches that a run of the body holds, in the order of the device's stream.
  void copy_inputs() {
    const Links& host = cluster_.host;
    if (host.rate == 0) return;
    double seconds = 0;
    for (const auto& [name, operands] : program_.inputs)
      for (const Operand& operand : operands)
        seconds += host.latency_seconds +
                   static_cast<double>(operand.type.bytes()) / host.effective_rate();
    out_.tasks.push_back({Task::Kind::copy, picoseconds_of(seconds)});
  }

  void section(int first, int last, std::int64_t repeats) {
    bool open = false;
    for (int i = first; i < last; ++i) {
      const Step& step = program_.steps[static_cast<std::size_t>(i)];
      out_.instructions += repeats;
      out_.step_picoseconds.push_back(0);
      if (step.kind == Instruction::Kind::run) {
        if (!std::exchange(open, true)) out_.tasks.push_back({Task::Kind::compute, 0, -1, i, i});
        kernel(step, static_cast<double>(repeats));
        out_.tasks.back().picoseconds += out_.step_picoseconds.back();
        out_.tasks.back().last_step = i + 1;
        continue;
      }
      open = false;
      const bool starts = step.kind == Instruction::Kind::start;
      if (starts) collective(step.node, repeats);
      out_.tasks.push_back({starts ? Task::Kind::start : Task::Kind::wait, 0,
                            call_of_[static_cast<std::size_t>(step.node)], i, i + 1});
      if (starts && !pricing_.overlap_reductions && reduces(step.node))
        out_.tasks.push_back({Task::Kind::wait, 0, out_.tasks.back().collective, i, i + 1});
      if (!starts) cast(step, static_cast<double>(repeats));
    }
  }

  bool reduces(int node) const {
    const int call = call_of_[static_cast<std::size_t>(node)];
    return out_.collectives[static_cast<std::size_t>(call)].kind == CollectiveKind::reduce_scatter;
  }

  bool gathers_parameters(const Node& node) const {
    return node.op->name.starts_with("gather") && node.unit >= 0;
  }

  /// Of what a gather brought, for software that gathers in another type than it computes in.
  void cast(const Step& step, double repeats) {
    const Node& node = program_.graph.nodes[static_cast<std::size_t>(step.node)];
    if (pricing_.cast_bytes == 0 || !gathers_parameters(node)) return;
    double elements = 0;
    for (const Operand& whole : step.outputs)
      elements += static_cast<double>(whole.type.elements());
    add(moved(pricing_.cast_bytes * elements), repeats, out_.compute.memory);
    const int i = static_cast<int>(out_.step_picoseconds.size()) - 1;
    out_.tasks.push_back({Task::Kind::compute, out_.step_picoseconds.back(), -1, i, i + 1});
  }

  void kernel(const Step& step, double repeats) {
    const Node& node = program_.graph.nodes[static_cast<std::size_t>(step.node)];
    Cost cost = cost_of_step(program_, step);
    if (cost.kind == Cost::Class::none) return;
    const bool is_product = cost.kind == Cost::Class::product;
    const bool counts = is_product || cost.kind == Cost::Class::attention;
    if (!counts && node.section == Section::body) {
      cost.bytes_read *= pricing_.traffic_scale;
      cost.bytes_written *= pricing_.traffic_scale;
    }
    const DType dtype = (step.inputs.empty() ? step.outputs : step.inputs)[0].type.dtype;
    const bool backward = node.op->name.ends_with("backward");
    const int processors = cluster_.device.multiprocessors;
    const double part = is_product ? filled(program_, step, processors) : 1;
    const double seconds = seconds_of(cost, dtype, backward, cluster_.device, part);
    add(seconds, repeats,
        node.section == Section::update ? out_.compute.update
        : is_product                    ? out_.compute.product
        : counts                        ? out_.compute.attention
                                        : out_.compute.memory);
    if (!counts) return;
    const bool head = node.op->name.starts_with("linear_cross_entropy");
    if (head) add(moved(pricing_.logit_bytes * logits(node)), repeats, out_.compute.memory);
    const bool both = node.op->name == "linear_cross_entropy_with_gradient";
    out_.flops += repeats * cost.flops;
    if (!node.backward) out_.model_flops += (both ? 1 : 3) * repeats * cost.flops;
  }

  void add(double seconds, double repeats, double& part) {
    out_.step_picoseconds.back() += picoseconds_of(seconds);
    part += repeats * seconds;
  }

  double moved(double bytes) const {
    return bytes / (cluster_.device.memory_rate * cluster_.device.memory_efficiency);
  }

  /// Tokens x words of linear_cross_entropy(x, weight, targets).
  double logits(const Node& node) const {
    return static_cast<double>(program_.graph[node.inputs[2]].type.elements()) *
           static_cast<double>(program_.graph[node.inputs[1]].type.shape[0]);
  }

  void collective(int n, std::int64_t repeats) {
    const Node& node = program_.graph.nodes[static_cast<std::size_t>(n)];
    CollectiveCall call;
    call.kind = kind_of(node);
    call.bytes = wire_bytes(program_.graph, node, call.kind);
    call.ranks = static_cast<int>(node.attributes.integer("ranks"));
    call.stream = pricing_.streams > 1 && call.kind == CollectiveKind::reduce_scatter ? 1 : 0;
    call.label = std::string(label_of(program_.graph, node));
    call.among = among_of(node);
    const double wire =
        static_cast<double>(call.bytes) * (gathers_parameters(node) ? pricing_.gather_scale : 1);
    const int groups = out_.ranks / call.ranks;
    const int stride = call.among == Among::replicas ? groups : 1;
    if (call.among == Among::shards && groups > 1) out_.group = call.ranks;
    call.picoseconds = picoseconds_of(
        seconds_of(call.kind, wire, call.ranks, cluster_, pricing_.algorithm, stride));
    const Placement where = placement(call.ranks, stride, cluster_);
    const double sent = static_cast<double>(repeats) * call.sent_bytes();
    out_.sent_bytes += groups * sent;
    if (where.local > 1) out_.node_bytes += sent / call.ranks;
    if (!where.one_node()) out_.network_bytes += where.beside * sent / call.ranks;
    call_of_[static_cast<std::size_t>(n)] = static_cast<int>(out_.collectives.size());
    out_.collectives.push_back(std::move(call));
  }

  const Program& program_;
  const Cluster& cluster_;
  const Pricing& pricing_;
  std::vector<int> call_of_;  // by node
  Workload out_;
};

}  // namespace

Workload price(const Program& program, std::int64_t micro_batches, int ranks,
               const Cluster& cluster, const Pricing& pricing) {
  return Pricer(program, micro_batches, ranks, cluster, pricing).run();
}

}  // namespace ashlar::simulate
