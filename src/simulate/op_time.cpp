#include "simulate/op_time.hpp"

#include <algorithm>

namespace ashlar::simulate {
namespace {

bool in_place(const Operand& input, const Operand& output) {
  return input.space == output.space && input.offset >= output.offset &&
         input.offset + input.type.bytes() <= output.offset + output.type.bytes();
}

Cost moved_once(const Step& step, bool placed) {
  Cost cost;
  for (const Operand& input : step.inputs) {
    if (!input.present || (placed && in_place(input, step.outputs[0]))) continue;
    cost.bytes_read += static_cast<double>(input.type.bytes());
    if (placed) cost.bytes_written += static_cast<double>(input.type.bytes());
  }
  if (placed) return cost;
  for (const Operand& output : step.outputs)
    cost.bytes_written += static_cast<double>(output.type.bytes());
  return cost;
}

}  // namespace

Cost cost_of_step(const Program& program, const Step& step) {
  const Node& node = program.graph.nodes[static_cast<std::size_t>(step.node)];
  if (step.kind != Instruction::Kind::run || node.op->run == nullptr)
    return {.kind = Cost::Class::none};
  if (node.op->cost != nullptr) return cost_of(program.graph, node);
  return moved_once(step, node.op->place != nullptr);
}

double seconds_of(const Cost& cost, DType dtype, bool backward, const Device& device,
                  double filled) {
  if (cost.kind == Cost::Class::none) return 0;
  const double bytes =
      (cost.bytes_read + cost.bytes_written) / (device.memory_rate * device.memory_efficiency);
  const double peak = size_of(dtype) > 2 ? device.peak_flops_f32 : device.peak_flops;
  double flops = cost.flops / device.peak_flops_f32;
  if (cost.kind == Cost::Class::product) {
    flops = cost.flops / (peak * device.product_efficiency * filled);
  } else if (cost.kind == Cost::Class::attention) {
    flops = cost.flops / (peak * device.attention_efficiency);
    if (backward) flops *= device.attention_backward_slowdown;
  }
  return std::max(flops, bytes) + device.launch_seconds;
}

}  // namespace ashlar::simulate
