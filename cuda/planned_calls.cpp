#include "cuda/planned_calls.hpp"

namespace ashlar::cuda {
namespace {

/// Where the arenas would begin: nothing is read or written there.
constexpr std::uintptr_t kSomewhere = 1 << 20;

std::byte* planned_address(const Operand& operand) {
  return reinterpret_cast<std::byte*>(kSomewhere + static_cast<std::uintptr_t>(operand.offset));
}

std::vector<TensorView> planned_views(const std::vector<Operand>& operands) {
  std::vector<TensorView> views;
  for (const Operand& o : operands)
    views.push_back(o.present
                        ? TensorView(planned_address(o), o.type.dtype, o.type.shape, o.strides)
                        : TensorView());
  return views;
}

}  // namespace

void for_each_planned_call(
    std::span<const Program> programs, StreamRef stream,
    const std::function<void(const Node&, const Backend&, const KernelArguments&)>& body) {
  RunContext context;
  context.stream = stream;
  for (const Program& program : programs) {
    for (const Step& step : program.steps) {
      const Node& node = program.graph.nodes[static_cast<std::size_t>(step.node)];
      const auto inputs = planned_views(step.inputs), outputs = planned_views(step.outputs);
      body(node, program.backend,
           {.context = context,
            .attributes = node.attributes,
            .inputs = inputs,
            .outputs = outputs,
            .workspace = planned_address(step.workspace)});
    }
  }
}

}  // namespace ashlar::cuda
