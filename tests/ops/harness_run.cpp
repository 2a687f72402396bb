// Runs of a case: its graph with what derivatives are asked for, evaluated.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <memory>
#include <random>

#include "ashlar/autodiff.hpp"
#include "ashlar/buffer.hpp"
#include "ashlar/ops.hpp"
#include "graph/evaluate.hpp"
#include "ops/harness.hpp"
#include "runtime/thread_pool.hpp"
#include "support/elements.hpp"

namespace ashlar::test {
namespace {

/// Serves memory `offset` bytes behind what the host gives.
class OffsetResource final : public MemoryResource {
 public:
  explicit OffsetResource(std::int64_t offset) : offset_(offset) {}

 private:
  void* do_allocate(std::int64_t bytes, Category category, StreamRef stream) override {
    return static_cast<std::byte*>(host_memory().allocate(bytes + offset_, category, stream)) +
           offset_;
  }
  void do_deallocate(void* pointer, std::int64_t bytes, Category category,
                     StreamRef stream) noexcept override {
    host_memory().deallocate(static_cast<std::byte*>(pointer) - offset_, bytes + offset_, category,
                             stream);
  }
  std::int64_t offset_;
};

/// Inputs of an evaluation and the memory that they lie in.
class Bindings {
 public:
  explicit Bindings(MemoryResource& resource) : resource_(resource) {}
  void bind(const std::string& name, DType dtype, const Shape& shape, const Doubles& values) {
    buffers_.emplace_back(resource_, shape.elements() * size_of(dtype), Category::input);
    views_[name] = buffers_.back().view(dtype, shape);
    for (std::size_t i = 0; i < values.size(); ++i)
      set_element(views_[name], static_cast<std::int64_t>(i), values[i]);
  }
  const std::map<std::string, TensorView>& views() const { return views_; }

 private:
  MemoryResource& resource_;
  std::vector<Buffer> buffers_;
  std::map<std::string, TensorView> views_;
};

/// Every row can be differentiated in both modes, or says why not.
void check_rows(const Case& c, const Graph& graph) {
  for (const Node& node : graph.nodes) {
    const OpDef& op = *node.op;
    const bool both =
        op.stops_derivatives || op.expand != nullptr || (op.vjp != nullptr && op.jvp != nullptr);
    CHECK_MESSAGE(both != !op.not_differentiable.empty(), c.name, ": row '", op.name,
                  "' neither has rules nor says why not");
  }
}

}  // namespace

double rounded(double x, DType dtype) {
  if (dtype == DType::f32) return static_cast<float>(x);
  if (dtype == DType::bf16) return bf16(static_cast<float>(x));
  return x;
}

Doubles random_values(std::int64_t count, double low, double high, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  Doubles values(static_cast<std::size_t>(count));
  for (double& v : values) v = low + (high - low) * static_cast<double>(random() >> 11) * 0x1p-53;
  return values;
}

std::vector<Doubles> random_inputs(const Case& c) {
  std::vector<Doubles> inputs;
  std::uint64_t seed = c.seed * 1000;
  for (const Input& input : c.inputs) {
    inputs.push_back(random_values(input.shape.elements(), input.low, input.high, ++seed));
    if (input.integer)
      for (double& v : inputs.back()) v = std::floor(v);
    if (!input.values.empty()) inputs.back() = input.values;
  }
  return inputs;
}

Result run(const Case& c, std::span<const Doubles> inputs, const Run& how) {
  OffsetResource resource(how.offset_bytes);
  Bindings bindings(resource);
  Tracer tracer;
  std::vector<Value> values, wrt;
  for (std::size_t k = 0; k < c.inputs.size(); ++k) {
    const DType dtype = c.inputs[k].integer ? DType::i32 : how.dtype;
    const std::string name = fmt::format("x{}", k);
    values.push_back(tracer.input(name, dtype, c.inputs[k].shape));
    bindings.bind(name, dtype, c.inputs[k].shape, inputs[k]);
    if (is_wrt(c.inputs[k])) wrt.push_back(values.back());
  }
  std::vector<Value> results = c.build(tracer, values);
  if (how.backward) {
    std::vector<Value> cotangents;
    for (std::size_t o = 0; o < results.size(); ++o) {
      const std::string name = fmt::format("g{}", o);
      const TensorType type = results[o].type();
      cotangents.push_back(tracer.input(name, type.dtype, type.shape));
      bindings.bind(name, type.dtype, type.shape,
                    how.cotangents.empty() ? Doubles(static_cast<std::size_t>(type.elements()), 1.0)
                                           : how.cotangents[o]);
    }
    for (const Value& gradient : vjp(tracer, results, cotangents, wrt, how.gradient_dtypes)) {
      REQUIRE_MESSAGE(gradient, c.name, ": an input has no gradient");
      results.push_back(gradient);
    }
  }
  const auto bound = [&](const char* name, const std::vector<Doubles>& directions) {
    std::vector<Value> inputs_of_wrt;
    for (std::size_t i = 0; i < directions.size(); ++i) {
      const TensorType type = wrt[i].type();
      inputs_of_wrt.push_back(tracer.input(fmt::format("{}{}", name, i), type.dtype, type.shape));
      bindings.bind(fmt::format("{}{}", name, i), type.dtype, type.shape, directions[i]);
    }
    return inputs_of_wrt;
  };
  const std::vector<Value> tangents = bound("t", how.tangents),
                           second = bound("s", how.second_cotangents);
  const auto append = [&](const std::vector<Value>& derivatives, std::span<const Value> like) {
    for (std::size_t i = 0; i < derivatives.size(); ++i) {
      const TensorType type = like[i].type();
      results.push_back(derivatives[i] ? derivatives[i]
                                       : constant(tracer, 0, type.dtype, type.shape));
    }
  };
  const std::vector<Value> primal = results;
  if (!tangents.empty()) append(jvp(tracer, primal, wrt, tangents), primal);
  if (!second.empty()) append(vjp(tracer, std::span(primal).last(wrt.size()), second, wrt), wrt);
  check_rows(c, tracer.graph());
  for (std::size_t i = 0; i < results.size(); ++i)
    tracer.output(fmt::format("y{:03}", i), contiguous(results[i]));

  std::unique_ptr<ThreadPool> pool;
  if (how.threads > 0) pool = std::make_unique<ThreadPool>(how.threads);
  RunContext context = how.context;
  context.pool = pool.get();
  const Tensors tensors = evaluate(tracer.graph(), bindings.views(), context, resource,
                                   {.cpu = "test", .threads = std::max(1, how.threads)});
  Result result;
  for (const auto& [name, tensor] : tensors) {
    const TensorView& view = tensor.second;
    Doubles numbers(static_cast<std::size_t>(view.elements()));
    for (std::size_t i = 0; i < numbers.size(); ++i)
      numbers[i] = element(view, static_cast<std::int64_t>(i));
    result.values.push_back(std::move(numbers));
    result.bytes.emplace_back(view.data, view.data + view.bytes());
  }
  return result;
}

}  // namespace ashlar::test
