// Each kernel of a transformer block by itself: seconds, GFLOP/s and GB/s by the op's own cost row.
// Prints one JSON object. Flags: --batch, --seq, --heads, --head-size, --dtype, --threads,
// --rounds.
#include "ashlar/ops.hpp"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <vector>

#include "ashlar/autodiff.hpp"
#include "ashlar/buffer.hpp"
#include "ashlar/op.hpp"
#include "hardware.hpp"
#include "runtime/thread_pool.hpp"
#include "timing.hpp"

namespace {

using namespace ashlar;
using nlohmann::ordered_json;

struct Settings {
  std::int64_t batch = 4, positions = 256, head_size = 64;
  int heads = 12, threads = 1, rounds = 20;
  std::string dtype = "f32";
};

/// A graph with memory for every value, whose nodes run one by one.
class Bench {
 public:
  Bench(const Graph& graph, const Settings& settings)
      : graph_(graph), pool_(settings.threads), rounds_(settings.rounds) {
    context_.pool = &pool_;
    views_.resize(graph.values.size());
    for (const ValueId id : graph.inputs) make(id);
  }

  ordered_json run() {
    ordered_json results = ordered_json::array();
    for (const Node& node : graph_.nodes) {
      if (node.op->run != nullptr) results.push_back(run(node));
      if (node.op->view != nullptr) follow(node);
    }
    return results;
  }

 private:
  TensorView& view(ValueId id) { return views_[static_cast<std::size_t>(id)]; }

  void make(ValueId id) {
    const TensorType& type = graph_[id].type;
    buffers_.emplace_back(host_memory(), type.bytes(), Category::activation);
    view(id) = buffers_.back().view(type.dtype, type.shape);
    for (std::int64_t i = 0; i < type.elements(); ++i) {
      const auto value = static_cast<float>((i * 7919) % 2003) / 2003.0F - 0.5F;
      if (type.dtype == DType::f32) view(id).as<float>()[i] = value;
      if (type.dtype == DType::bf16) view(id).as<bf16>()[i] = bf16(value);
      if (type.dtype == DType::i32)
        view(id).as<std::int32_t>()[i] = static_cast<std::int32_t>((i * 7919) % 50257);
    }
  }

  void follow(const Node& node) {
    const TensorView& from = view(node.inputs[0]);
    const ValueInfo& to = graph_[node.outputs[0]];
    const auto layout =
        node.op->view({from.dtype, from.shape}, from.strides, to.type, node.attributes);
    view(node.outputs[0]) = {from.data + layout->offset * size_of(from.dtype), from.dtype,
                             to.type.shape, layout->strides};
  }

  ordered_json run(const Node& node) {
    std::vector<TensorType> input_types, output_types;
    std::vector<TensorView> inputs, outputs;
    for (const ValueId id : node.inputs) {
      inputs.push_back(id == kNoValue ? TensorView() : view(id));
      input_types.push_back(id == kNoValue ? TensorType() : graph_[id].type);
    }
    for (const ValueId id : node.outputs) {
      make(id);
      outputs.push_back(view(id));
      output_types.push_back(graph_[id].type);
    }
    const Backend backend{.cpu = "", .threads = pool_.threads()};
    const OpShapes shapes{input_types, output_types, node.attributes};
    const std::int64_t bytes =
        node.op->workspace == nullptr ? 0 : node.op->workspace(shapes, backend);
    const Buffer workspace(host_memory(), bytes, Category::workspace);
    const auto plan = node.op->prepare == nullptr ? nullptr : node.op->prepare(shapes, backend);
    double best = 1e30;
    for (int round = 0; round < rounds_; ++round) {
      const auto start = perf::Clock::now();
      node.op->run({context_, node.attributes, inputs, outputs, workspace.data(), plan.get()});
      best = std::min(best, perf::seconds_since(start));
    }
    const Cost cost = node.op->cost(shapes);
    return {{"op", std::string(node.op->name)},
            {"input", inputs.empty() ? "" : to_string(inputs[0].shape)},
            {"microseconds", best * 1e6},
            {"gflops", cost.flops / best * 1e-9},
            {"gbytes_per_second", (cost.bytes_read + cost.bytes_written) / best * 1e-9},
            {"workspace_bytes", bytes}};
  }

  const Graph& graph_;
  ThreadPool pool_;
  int rounds_;
  RunContext context_;
  std::vector<TensorView> views_;
  std::vector<Buffer> buffers_;
};

/// The ops of a block that are not matrix products, each on inputs of its own, and their gradients.
Graph block(const Settings& s) {
  Tracer tracer;
  const DType dtype = dtype_from_name(s.dtype);
  const std::int64_t channels = s.heads * s.head_size;
  const Shape hidden{s.batch, s.positions, channels};
  const auto input = [&](const char* name, const Shape& shape) {
    return tracer.input(name, dtype, shape);
  };
  const Value x = input("x", hidden), residual = input("residual", hidden);
  const Value weight = input("weight", {channels}), bias = input("bias", {channels});
  const Value qkv = input("qkv", {s.batch, s.positions, 3 * channels});
  const Value wide = input("wide", {s.batch, s.positions, 4 * channels});
  const Value table = input("table", {50257, channels});
  const Value places = input("places", {s.positions, channels});
  const Value tokens = tracer.input("tokens", DType::i32, {s.batch, s.positions});
  const auto [total, normal] = add_layer_norm(x, residual, weight, bias);
  const std::vector<Value> outputs{causal_attention(qkv, s.heads),
                                   gelu(wide),
                                   normal,
                                   total,
                                   layer_norm(x, weight, bias),
                                   dropout(x, 0.1),
                                   add(x, residual),
                                   embedding(tokens, table, places)};
  std::vector<Value> cotangents;
  for (const Value& y : outputs) {
    const TensorType type = y.type();
    cotangents.push_back(
        tracer.input(fmt::format("g{}", cotangents.size()), type.dtype, type.shape));
  }
  const std::vector<Value> wrt{x, residual, weight, bias, qkv, wide, table, places};
  vjp(tracer, outputs, cotangents, wrt);
  return tracer.graph();
}

}  // namespace

int main(int argc, char** argv) {
  Settings settings;
  CLI::App app("Times the kernels of a transformer block.");
  app.add_option("--batch", settings.batch);
  app.add_option("--seq", settings.positions);
  app.add_option("--heads", settings.heads);
  app.add_option("--head-size", settings.head_size);
  app.add_option("--dtype", settings.dtype);
  app.add_option("--threads", settings.threads);
  app.add_option("--rounds", settings.rounds);
  CLI11_PARSE(app, argc, argv);
  const Graph graph = block(settings);
  ordered_json report{{"hardware", hardware()}};
  report["settings"] = {{"batch", settings.batch},  {"seq", settings.positions},
                        {"heads", settings.heads},  {"head_size", settings.head_size},
                        {"dtype", settings.dtype},  {"threads", settings.threads},
                        {"rounds", settings.rounds}};
  report["kernels"] = Bench(graph, settings).run();
  fmt::print("{}\n", report.dump(2));
}
