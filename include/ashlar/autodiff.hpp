// Differentiation, graph to graph: every transformation appends nodes to a Tracer and runs nothing,
// so transformations compose. Below: sweeps over a graph that exists, then transformations of
// functions, then what backward keeps.
#pragma once

#include <functional>
#include <source_location>
#include <span>
#include <string>
#include <vector>

#include "ashlar/graph.hpp"

namespace ashlar {

/// Appends to `tracer` the backward of everything computed so far.
/// @param outputs values whose cotangents are given
/// @param cotangents of the outputs, same types; empty handles are zero
/// @param wrt inputs or intermediate values to differentiate with respect to
/// @param gradient_dtype for each wrt, the type its cotangent is computed in (empty span: the
/// value's own)
/// @return one cotangent per wrt; an empty handle where the outputs do not depend on it.
/// Contributions to a value are summed in backward order (last use first).
/// @throws InvalidArgument naming an op that is on the path and is not differentiable, and why.
std::vector<Value> vjp(Tracer& tracer, std::span<const Value> outputs,
                       std::span<const Value> cotangents, std::span<const Value> wrt,
                       std::span<const DType> gradient_dtypes = {});

/// The same, with what different runs of a unit contribute to a `wrt` kept apart, last use first:
/// sums over micro-batches then do not depend on the order of units and micro-batches. `wrt` are
/// graph inputs.
std::vector<std::vector<Value>> vjp_by_use(Tracer& tracer, std::span<const Value> outputs,
                                           std::span<const Value> cotangents,
                                           std::span<const Value> wrt,
                                           std::span<const DType> gradient_dtypes = {});

/// Forward mode: appends the derivative of `outputs` along `tangents`.
/// @param tangents of `wrt`, same types; empty handles are zero
/// @return one tangent per output; an empty handle where it does not depend on `wrt`
/// @throws InvalidArgument naming an op that is on the path and is not differentiable, and why.
std::vector<Value> jvp(Tracer& tracer, std::span<const Value> outputs, std::span<const Value> wrt,
                       std::span<const Value> tangents);

/// Model code: values in, values out. It may use values that are not its arguments; they are
/// constants to the transformations below.
using Function = std::function<std::vector<Value>(std::span<const Value>)>;

/// f's outputs, and a linear function that may be applied any number of times.
struct Linearized {
  std::vector<Value> outputs;
  Function linear;
};

// In what follows each argument is a variable of its own, even where one value is given twice.
// Results are never empty, except derivatives by or of what has no floating-point type; what does
// not depend on an argument has zeros. Arguments of `linear` may be empty: zero.
// @throws InvalidArgument without inputs, and as vjp and jvp do.

/// Reverse mode: `linear` takes cotangents of the outputs and gives those of the inputs.
Linearized vjp(const Function& f, std::span<const Value> inputs);
/// Forward mode: `linear` takes tangents of the inputs and gives those of the outputs.
Linearized linearize(const Function& f, std::span<const Value> inputs);

struct ValueAndGradients {
  std::vector<Value> outputs;
  std::vector<Value> gradients;  // of outputs[0], one per input
};
/// All of f's outputs and the gradient of the first, which has one element.
ValueAndGradients value_and_grad(const Function& f, std::span<const Value> inputs);
/// The gradient of f's first output as a function, to be transformed further.
Function grad(Function f);

struct ValueAndTangents {
  std::vector<Value> outputs;
  std::vector<Value> tangents;
};
/// f's outputs and their derivative along `tangents`.
ValueAndTangents jvp(const Function& f, std::span<const Value> inputs,
                     std::span<const Value> tangents);

/// Something that backward reads and forward made or was given.
struct Residual {
  std::string name;  // an input's or output's name, else the op that made it
  TensorType type;
  std::int64_t bytes;  // of the memory that is kept: views are counted as what they look into
  InputKind input;     // none: made by forward
  std::source_location where;  // the line of model code that made it
};
/// What backward keeps of a graph that holds both, in the order in which it was made.
std::vector<Residual> saved_residuals(const Graph& graph);
/// What the backward of f keeps when all its outputs have cotangents.
std::vector<Residual> saved_residuals(const Function& f, std::span<const TensorType> inputs);
/// One line per residual: bytes, type, name, file:line; the sum of what is not an input last.
std::string to_string(std::span<const Residual> residuals);

}  // namespace ashlar
