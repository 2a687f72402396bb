#include "ashlar/pullback.hpp"

#include <fmt/format.h>

#include <cstring>

#include "ashlar/error.hpp"
#include "graph/cost.hpp"
#include "graph/forward_backward.hpp"

namespace ashlar {
namespace {

std::size_t index(std::int64_t i) { return static_cast<std::size_t>(i); }

void check(const Tensor& tensor, const TensorType& type, std::string_view what, std::size_t i) {
  const TensorView& view = tensor.view;
  if (view.dtype != type.dtype || !(view.shape == type.shape)) {
    throw InvalidArgument(fmt::format("{} {} is {}{}, not {}{}", what, i, name_of(view.dtype),
                                      to_string(view.shape), name_of(type.dtype),
                                      to_string(type.shape)));
  }
  if (!view.contiguous()) throw InvalidArgument(fmt::format("{} {} is not contiguous", what, i));
}

void check_count(std::size_t given, std::size_t wanted, std::string_view what) {
  if (given != wanted)
    throw InvalidArgument(fmt::format("{} {} are given, {} wanted", given, what, wanted));
}

Tensor taken(Evaluation& evaluation, ValueId id) {
  if (id == kNoValue) return {};
  auto [view, memory] = evaluation.take(id);
  return {view, std::move(memory)};
}

Tensor zeros(const TensorType& type, MemoryResource& memory) {
  Tensor tensor = make_tensor(type, memory, Category::activation);
  std::memset(tensor.view.data, 0, index(type.bytes()));
  return tensor;
}

}  // namespace

Tensor make_tensor(const TensorType& type, MemoryResource& memory, Category category) {
  auto buffer = std::make_shared<const Buffer>(memory, type.bytes(), category);
  const TensorView view = buffer->view(type.dtype, type.shape);
  return {view, std::move(buffer)};
}

ForwardBackward::ForwardBackward(const Function& f, std::span<const TensorType> inputs,
                                 Backend backend) {
  Program program = differentiate(f, inputs);
  require_kernels(program.graph, backend);
  program.backend = std::move(backend);
  for (const Node& node : program.graph.nodes) {
    const auto [in, out] = types_of(program.graph, node);
    program.plans.push_back(node.op->prepare == nullptr
                                ? nullptr
                                : node.op->prepare({in, out, node.attributes}, program.backend));
  }
  program_ = std::make_shared<const Program>(std::move(program));
}

std::pair<std::vector<Tensor>, std::shared_ptr<PausedRun>> ForwardBackward::forward(
    std::vector<Tensor> inputs, const RunOptions& options) const {
  const Graph& graph = program_->graph;
  check_count(inputs.size(), program_->inputs.size(), "inputs");
  Evaluation evaluation(graph, {options.context, options.memory, program_->backend});
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    check(inputs[i], graph[program_->inputs[i]].type, "input", i);
    evaluation.bind(program_->inputs[i], inputs[i].view, std::move(inputs[i].memory));
  }
  for (std::size_t n = 0; n < index(program_->pause); ++n)
    evaluation.run(graph.nodes[n], program_->plans[n].get());
  std::vector<Tensor> outputs;
  for (const ValueId id : program_->outputs) outputs.push_back(taken(evaluation, id));
  return {std::move(outputs),
          std::make_shared<PausedRun>(program_, std::move(evaluation), options)};
}

std::vector<Residual> ForwardBackward::residuals() const { return saved_residuals(*program_); }

void PausedRun::bind(Evaluation& evaluation, std::vector<Tensor> cotangents) const {
  check_count(cotangents.size(), program_->cotangents.size(), "cotangents");
  for (std::size_t i = 0; i < cotangents.size(); ++i) {
    const ValueId id = program_->cotangents[i];
    if (id == kNoValue && cotangents[i])
      throw InvalidArgument(fmt::format("output {} has no cotangent: it holds integers", i));
    if (id == kNoValue) continue;
    const TensorType& type = program_->graph[id].type;
    if (!cotangents[i]) cotangents[i] = zeros(type, *options_.memory);
    check(cotangents[i], type, "cotangent", i);
    evaluation.bind(id, cotangents[i].view, std::move(cotangents[i].memory));
  }
}

std::vector<Tensor> PausedRun::gradients(Evaluation& evaluation) const {
  std::vector<Tensor> gradients;
  for (const ValueId id : program_->gradients) gradients.push_back(taken(evaluation, id));
  return gradients;
}

std::vector<Tensor> PausedRun::finish(std::vector<Tensor> cotangents) && {
  bind(evaluation_, std::move(cotangents));
  for (std::size_t n = index(program_->pause); n < program_->graph.nodes.size(); ++n)
    evaluation_.run(program_->graph.nodes[n], program_->plans[n].get());
  return gradients(evaluation_);
}

std::vector<std::vector<Tensor>> PausedRun::run(std::vector<std::vector<Tensor>> cotangents) const {
  std::vector<Evaluation> runs(cotangents.size(), evaluation_);
  for (std::size_t k = 0; k < runs.size(); ++k) bind(runs[k], std::move(cotangents[k]));
  for (std::size_t n = index(program_->pause); n < program_->graph.nodes.size(); ++n) {
    const Node& node = program_->graph.nodes[n];
    for (std::size_t k = 0; k < runs.size(); ++k) {
      if (k == 0 || program_->by_cotangent[n]) {
        runs[k].run(node, program_->plans[n].get());
      } else {
        runs[k].share(node, runs[0]);
      }
    }
  }
  std::vector<std::vector<Tensor>> results;
  for (Evaluation& run : runs) results.push_back(gradients(run));
  return results;
}

std::vector<Tensor> Pullback<once>::operator()(std::vector<Tensor> cotangents) && {
  const auto run = std::move(run_);
  if (run == nullptr)
    throw InvalidArgument(
        "a pullback of kind once is called a second time; run<repeatable>() gives one that may be");
  return std::move(*run).finish(std::move(cotangents));
}

std::vector<Tensor> Pullback<repeatable>::operator()(std::vector<Tensor> cotangents) const {
  std::vector<std::vector<Tensor>> one;
  one.push_back(std::move(cotangents));
  return std::move(batched(std::move(one))[0]);
}

std::vector<std::vector<Tensor>> Pullback<repeatable>::batched(
    std::vector<std::vector<Tensor>> cotangents) const {
  return run_->run(std::move(cotangents));
}

}  // namespace ashlar
