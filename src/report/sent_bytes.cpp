// The collectives of a Program, in bytes.
#include <algorithm>

#include "ashlar/op.hpp"
#include "report/footprint.hpp"

namespace ashlar {
namespace {

/// Of rank 0, which sends most: every rank sums a part (rank 0 never has the smallest), and sends
/// it to all others.
std::int64_t all_reduced(std::int64_t elements, std::int64_t ranks) {
  const std::int64_t part = (elements + ranks * 64 - 1) / (ranks * 64) * 64;
  const std::int64_t mine = std::min(part, elements);
  return elements - mine + mine * (ranks - 1);
}

}  // namespace

SentBytes sent_bytes(const CompiledStep& compiled) {
  const Program& program = compiled.programs[0];
  const std::int64_t runs = compiled.config.micro_batches / program.micro_batches;
  SentBytes sent{};
  for (int i = 0; i < static_cast<int>(program.steps.size()); ++i) {
    const Step& step = program.steps[static_cast<std::size_t>(i)];
    if (step.kind != Instruction::Kind::start) continue;
    const Node& node = program.graph.nodes[static_cast<std::size_t>(step.node)];
    const bool again = i >= program.body_first && i < program.body_last;
    const auto count = [&](Traffic kind, std::int64_t bytes) {
      sent[static_cast<std::size_t>(kind)] += bytes * (again ? runs : 1);
    };
    const std::int64_t ranks = node.attributes.integer("ranks");
    const std::size_t flats = step.inputs.size() - in_place_pairs(node).size();
    if (node.op->name.starts_with("all_reduce")) {
      const TensorType& type = step.inputs[0].type;
      count(Traffic::all_reduce, all_reduced(type.elements(), ranks) * size_of(type.dtype));
    } else if (node.op->name.starts_with("reduce_scatter")) {
      for (std::size_t f = 0; f < flats; ++f)
        count(Traffic::reduce_scatter, step.inputs[f].type.bytes() / ranks * (ranks - 1));
    } else {
      for (std::size_t f = 0; f < flats; ++f)
        count(Traffic::all_gather, step.inputs[f].type.bytes() * (ranks - 1));
    }
  }
  return sent;
}

}  // namespace ashlar
