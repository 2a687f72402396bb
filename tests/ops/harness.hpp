// The op table: one Case per op checks its forward against a textbook oracle, its vjp, jvp and jvp
// of vjp against finite differences in f64, f32 and bf16 against f64, and that bits depend on
// nothing but values.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "ashlar/graph.hpp"
#include "ashlar/op.hpp"

namespace ashlar::test {

/// The kind of one input of a case.
struct Input {
  Shape shape;
  double low = -1, high = 1;        // uniform in [low, high)
  bool integer = false;             // i32 in [low, high) instead of the floating type under test
  bool differentiable = true;       // floats only
  DType gradient = DType::f32;      // for bf16: the type of its cotangent in a second backward run
  std::vector<double> values = {};  // these, instead of random ones
};

/// True when derivatives are taken with respect to it.
inline bool is_wrt(const Input& input) { return !input.integer && input.differentiable; }

using Doubles = std::vector<double>;
using Outputs = std::vector<Doubles>;

struct Case {
  std::string name;
  std::vector<Input> inputs;
  /// Model code.
  std::function<std::vector<Value>(Tracer&, std::span<const Value>)> build = {};
  /// The same in double, from the formula; one vector per output. Empty: no oracle.
  std::function<std::vector<Doubles>(std::span<const Doubles>)> oracle = {};
  /// Largest error of forward and backward, in units of the type's epsilon and the largest
  /// magnitude of the tensor.
  double f32_tolerance = 32;
  double bf16_tolerance = 4;
  /// Bits are the same for every number of threads (our own kernels; not a library's).
  bool same_bits_over_threads = true;
  std::uint64_t seed = 1;
  std::vector<DType> dtypes = {DType::f32, DType::bf16};  // compared with f64
};

/// Runs all checks of a case as doctest assertions.
void check(const Case& c);

/// One run of `build` in `dtype` on the given values: outputs, then (with backward) the cotangent
/// of each differentiable input. Values are rounded to dtype first.
struct Run {
  DType dtype = DType::f64;
  bool backward = false;
  std::vector<Doubles> cotangents = {};     // of the outputs; empty: all ones
  std::vector<DType> gradient_dtypes = {};  // per differentiable input; empty: dtype
  /// Per differentiable input: also the tangents of the outputs, and (with backward) those of the
  /// cotangents.
  std::vector<Doubles> tangents = {};
  /// Per differentiable input: also the cotangents of the inputs for cotangents of the gradients.
  std::vector<Doubles> second_cotangents = {};
  int threads = 0;                // 0: no pool
  std::int64_t offset_bytes = 0;  // every allocation lies so much further
  RunContext context = {};
};
struct Result {
  std::vector<Doubles> values;
  std::vector<std::vector<std::byte>> bytes;
};
Result run(const Case& c, std::span<const Doubles> inputs, const Run& how);

/// Values of the inputs of a case, from its seed.
std::vector<Doubles> random_inputs(const Case& c);
Doubles random_values(std::int64_t count, double low, double high, std::uint64_t seed);

/// x rounded to dtype.
double rounded(double x, DType dtype);

}  // namespace ashlar::test
