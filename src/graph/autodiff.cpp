// Transformations of functions: each argument becomes a variable of its own (an alias), the sweeps
// go over the nodes that the function made, zeros stand for what does not depend.
#include "ashlar/autodiff.hpp"

#include <fmt/format.h>

#include "ashlar/error.hpp"
#include "ashlar/ops.hpp"
#include "base/floating.hpp"
#include "graph/sweep.hpp"

namespace ashlar {
namespace {

bool is_float(Value value) { return value && ashlar::is_float(value.dtype()); }

/// What f did when it was called.
struct Trace {
  Tracer* tracer;
  std::vector<Value> arguments;  // aliases of the inputs
  std::vector<Value> outputs;
  NodeRange nodes;
};

Trace trace(const Function& f, std::span<const Value> inputs) {
  if (inputs.empty()) throw InvalidArgument("a function without inputs has no derivative");
  for (const Value& input : inputs) {
    if (!input) throw InvalidArgument("an input of the function to differentiate is absent");
  }
  Trace trace{&inputs[0].tracer(), {}, {}, {}};
  const int first = nodes_since(*trace.tracer).last;
  for (const Value& input : inputs) trace.arguments.push_back(alias(input));
  trace.outputs = f(trace.arguments);
  trace.nodes = nodes_since(*trace.tracer, first);
  return trace;
}

/// Zeros in place of what is empty; `like` gives the types.
std::vector<Value> filled(std::vector<Value> values, std::span<const Value> like) {
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (values[i] || !is_float(like[i])) continue;
    const TensorType type = like[i].type();
    values[i] = constant(like[i].tracer(), 0, type.dtype, type.shape);
  }
  return values;
}

/// The values whose derivative is given; what has no derivative is left out.
struct Given {
  std::vector<Value> values, derivatives;
};

Given given(std::span<const Value> values, std::span<const Value> derivatives, const char* what) {
  check_types(values, derivatives, what);
  Given given;
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (!derivatives[i]) continue;
    if (!is_float(values[i])) {
      throw InvalidArgument(
          fmt::format("value {} is {}: it has no {}", i, name_of(values[i].dtype()), what));
    }
    given.values.push_back(values[i]);
    given.derivatives.push_back(derivatives[i]);
  }
  return given;
}

}  // namespace

Linearized vjp(const Function& f, std::span<const Value> inputs) {
  const Trace t = trace(f, inputs);
  return {t.outputs, [t](std::span<const Value> cotangents) {
            const Given g = given(t.outputs, cotangents, "cotangent");
            return filled(reverse_sweep(*t.tracer, t.nodes, g.values, g.derivatives, t.arguments),
                          t.arguments);
          }};
}

Linearized linearize(const Function& f, std::span<const Value> inputs) {
  const Trace t = trace(f, inputs);
  return {t.outputs, [t](std::span<const Value> tangents) {
            const Given g = given(t.arguments, tangents, "tangent");
            return filled(forward_sweep(*t.tracer, t.nodes, t.outputs, g.values, g.derivatives),
                          t.outputs);
          }};
}

ValueAndGradients value_and_grad(const Function& f, std::span<const Value> inputs) {
  const Linearized backward = vjp(f, inputs);
  const std::vector<Value>& outputs = backward.outputs;
  if (outputs.empty() || !is_float(outputs[0]) || outputs[0].type().elements() != 1)
    throw InvalidArgument(
        "the first output of a function that has a gradient is one floating-point number");
  const TensorType type = outputs[0].type();
  std::vector<Value> cotangents(outputs.size());
  cotangents[0] = constant(outputs[0].tracer(), 1, type.dtype, type.shape);
  return {outputs, backward.linear(cotangents)};
}

Function grad(Function f) {
  return [f = std::move(f)](std::span<const Value> inputs) {
    return value_and_grad(f, inputs).gradients;
  };
}

ValueAndTangents jvp(const Function& f, std::span<const Value> inputs,
                     std::span<const Value> tangents) {
  const Linearized forward = linearize(f, inputs);
  return {forward.outputs, forward.linear(tangents)};
}

}  // namespace ashlar
