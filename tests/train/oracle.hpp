// What the tests against PyTorch share: stored tensors, distances, gradients by evaluating a graph.
#pragma once

#include <cmath>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "ashlar/train_step.hpp"
#include "graph/evaluate.hpp"
#include "sharding/safetensors.hpp"
#include "sharding/train_step_parts.hpp"

namespace ashlar {

inline const std::filesystem::path kData =
    std::filesystem::path(ASHLAR_TEST_DIR) / "oracle" / "data";

using ParameterValues = std::map<std::string, std::vector<float>>;

inline double norm(std::span<const float> x) {
  double sum = 0;
  for (const float v : x) sum += static_cast<double>(v) * v;
  return std::sqrt(sum);
}

inline double distance(std::span<const float> a, std::span<const float> b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += std::pow(static_cast<double>(a[i]) - b[i], 2);
  return std::sqrt(sum);
}

inline std::vector<float> read_floats(SafetensorsFile& file, const std::string& name,
                                      std::int64_t elements) {
  std::vector<float> values(static_cast<std::size_t>(elements));
  file.read(name, 0, {values.data(), DType::f32, {elements}});
  return values;
}

/// Gradients of a model in one type. `read` fills data inputs and parameters.
inline ParameterValues gradients(const LossModel& model, DType dtype, float& loss,
                                 const std::function<void(const ValueInfo&, TensorView)>& read) {
  ShardOptions options;
  options.precision = {dtype, dtype};
  const Graph graph = trace_training(model, options);
  std::vector<Buffer> memory;
  std::map<std::string, TensorView> inputs;
  for (const ValueId id : graph.inputs) {
    const ValueInfo& value = graph[id];
    memory.emplace_back(host_memory(), value.type.bytes(), Category::input);
    const TensorView view(memory.back().data(), value.type.dtype, value.type.shape);
    if (value.name == kLossCotangent) {
      *view.as<float>() = 1;
    } else {
      read(value, TensorView(view.data, view.dtype, {view.elements()}));
    }
    inputs.emplace(value.name, view);
  }
  const Tensors outputs = evaluate(graph, inputs, {});
  loss = *outputs.at("loss").second.as<float>();
  ParameterValues result;
  for (const Parameter& parameter : graph.parameters) {
    const TensorView view = outputs.at(gradient_name(parameter.name)).second;
    auto& values = result[parameter.name];
    for (std::int64_t i = 0; i < view.elements(); ++i)
      values.push_back(dtype == DType::f32 ? view.as<float>()[i]
                                           : static_cast<float>(view.as<bf16>()[i]));
  }
  return result;
}

/// All parameters, on rank 0. Collective.
inline ParameterValues read_parameters(Communicator& world, TrainStep& train) {
  ParameterValues parameters;
  for (int p = 0; p < static_cast<int>(train.layout().parameters().size()); ++p) {
    const Parameter& parameter = train.layout().parameters()[static_cast<std::size_t>(p)];
    const std::int64_t elements = parameter.shape.elements();
    std::vector<float> values(static_cast<std::size_t>(elements));
    train.read_parameter(p, {values.data(), DType::f32, {elements}});
    if (world.rank() == 0) parameters.emplace(parameter.name, values);
  }
  return parameters;
}

}  // namespace ashlar
