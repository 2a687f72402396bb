// Functions of values as functions of numbers.
#pragma once

#include <vector>

#include "ashlar/autodiff.hpp"
#include "ashlar/pullback.hpp"

namespace ashlar::test {

using Doubles = std::vector<double>;
using Values = std::span<const Value>;

/// A number list with a shape.
struct Array {
  Shape shape;
  Doubles numbers;
};
inline Array scalar(double x) { return {Shape(), {x}}; }

/// Runs f in f64 on these inputs.
std::vector<Doubles> run(const Function& f, const std::vector<Array>& inputs);
/// The derivative of f's outputs along `tangents`, by central differences.
std::vector<Doubles> difference(const Function& f, const std::vector<Array>& inputs,
                                const std::vector<Array>& tangents);
/// Numbers in [-1, 1).
Array random_array(const Shape& shape, unsigned seed);
void check_close(const Doubles& actual, const Doubles& expected, double tolerance);

Tensor to_tensor(const Array& array, DType dtype = DType::f64,
                 MemoryResource& memory = host_memory());
Doubles to_doubles(const Tensor& tensor);
std::vector<TensorType> types_of(const std::vector<Array>& inputs);

}  // namespace ashlar::test
