#include "autodiff/support.hpp"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <cmath>
#include <random>

#include "ashlar/ops.hpp"
#include "graph/evaluate.hpp"

namespace ashlar::test {

std::vector<Doubles> run(const Function& f, const std::vector<Array>& inputs) {
  Tracer tracer;
  std::vector<Value> arguments;
  std::map<std::string, TensorView> views;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const std::string name = fmt::format("x{}", i);
    arguments.push_back(tracer.input(name, DType::f64, inputs[i].shape));
    auto* data = reinterpret_cast<std::byte*>(const_cast<double*>(inputs[i].numbers.data()));
    views[name] = TensorView(data, DType::f64, inputs[i].shape);
  }
  const std::vector<Value> outputs = f(arguments);
  for (std::size_t i = 0; i < outputs.size(); ++i)
    tracer.output(fmt::format("y{:03}", i), contiguous(outputs[i]));
  validate(tracer.graph());
  std::vector<Doubles> results;
  for (const auto& [name, tensor] : evaluate(tracer.graph(), views, {})) {
    const auto* data = tensor.second.as<double>();
    results.emplace_back(data, data + tensor.second.elements());
  }
  return results;
}

std::vector<Doubles> difference(const Function& f, const std::vector<Array>& inputs,
                                const std::vector<Array>& tangents) {
  const double step = 1e-5;
  std::vector<Doubles> quotients;
  for (const double sign : {1.0, -1.0}) {
    std::vector<Array> moved = inputs;
    for (std::size_t k = 0; k < inputs.size(); ++k)
      for (std::size_t i = 0; i < moved[k].numbers.size(); ++i)
        moved[k].numbers[i] += sign * step * tangents[k].numbers[i];
    const std::vector<Doubles> values = run(f, moved);
    quotients.resize(values.size());
    for (std::size_t o = 0; o < values.size(); ++o) {
      quotients[o].resize(values[o].size());
      for (std::size_t i = 0; i < values[o].size(); ++i)
        quotients[o][i] += sign * values[o][i] / (2 * step);
    }
  }
  return quotients;
}

Array random_array(const Shape& shape, unsigned seed) {
  std::mt19937_64 random(seed);
  Array array{shape, Doubles(static_cast<std::size_t>(shape.elements()))};
  for (double& x : array.numbers) x = -1 + 2 * static_cast<double>(random() >> 11) * 0x1p-53;
  return array;
}

void check_close(const Doubles& actual, const Doubles& expected, double tolerance) {
  REQUIRE(actual.size() == expected.size());
  for (std::size_t i = 0; i < actual.size(); ++i) {
    INFO("element ", i, " is ", actual[i], ", not ", expected[i]);
    CHECK(std::abs(actual[i] - expected[i]) <= tolerance * std::max(1.0, std::abs(expected[i])));
  }
}

Tensor to_tensor(const Array& array, DType dtype, MemoryResource& memory) {
  const Tensor tensor = make_tensor({dtype, array.shape}, memory);
  for (std::size_t i = 0; i < array.numbers.size(); ++i) {
    if (dtype == DType::f64) tensor.view.as<double>()[i] = array.numbers[i];
    if (dtype == DType::f32) tensor.view.as<float>()[i] = static_cast<float>(array.numbers[i]);
    if (dtype == DType::i32)
      tensor.view.as<std::int32_t>()[i] = static_cast<std::int32_t>(array.numbers[i]);
  }
  return tensor;
}

Doubles to_doubles(const Tensor& tensor) {
  Doubles numbers;
  for (std::int64_t i = 0; i < tensor.view.elements(); ++i)
    numbers.push_back(tensor.view.dtype == DType::f64 ? tensor.view.as<double>()[i]
                                                      : tensor.view.as<float>()[i]);
  return numbers;
}

std::vector<TensorType> types_of(const std::vector<Array>& inputs) {
  std::vector<TensorType> types;
  for (const Array& input : inputs) types.push_back({DType::f64, input.shape});
  return types;
}

}  // namespace ashlar::test
