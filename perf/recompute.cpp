// What a memory budget costs: the choices that the compiler has for one rank of a GPT at ZeRO stage
// 3, planned, not run. Prints one JSON object. Flags: --model NAME (gpt2), --batch B (4), --seq T
// (1024), --ranks N (2). `seconds` is the search for all choices; operations are shares of a step's
// without recomputation, activations are shares of the peak without it.
#include <CLI/CLI.hpp>
#include <chrono>
#include <nlohmann/json.hpp>

#include "ashlar/nn/gpt.hpp"
#include "graph/cost.hpp"
#include "graph/recompute_search.hpp"
#include "hardware.hpp"
#include "ops/product/machine.hpp"
#include "sharding/train_step_parts.hpp"

namespace {

using nlohmann::ordered_json;

struct Planner {
  ashlar::FlatLayout layout;
  ashlar::ShardOptions options;
  ashlar::Backend backend = ashlar::host_backend(1);

  ashlar::PeakBytes operator()(const ashlar::Graph& graph) const {
    ashlar::StateLayout states;
    return planned_peak(compile(shard(graph, layout, options), {}, backend, states), states);
  }
};

ordered_json measure(const ashlar::GptConfig& config, const ashlar::GptTrace& how, int ranks) {
  ashlar::TrainConfig train;
  train.zero.stage = 3;
  const ashlar::ShardOptions options = shard_options(train);
  const ashlar::Graph joint = trace_training(
      [&](ashlar::Tracer& tracer) { return gpt_loss(tracer, config, how); }, options);
  const Planner plan{ashlar::FlatLayout(joint.parameters, joint.units, ranks), options};
  const auto start = std::chrono::steady_clock::now();
  const auto choices = recompute_choices(
      joint, plan.backend, true, [&](const ashlar::Graph& graph) { return plan(graph).total; });
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;

  constexpr auto kActivation = static_cast<std::size_t>(ashlar::Category::activation);
  const double work = flops_of(joint);
  const auto all = static_cast<double>(plan(joint).peak[kActivation]);
  const auto entry = [&](const ashlar::Graph& graph) {
    const ashlar::PeakBytes peak = plan(graph);
    return ordered_json{{"total_bytes", peak.total},
                        {"activation_bytes", peak.peak[kActivation]},
                        {"activation_share", static_cast<double>(peak.peak[kActivation]) / all},
                        {"extra_operations", flops_of(graph) / work - 1}};
  };
  ordered_json list = ordered_json::array();
  for (const auto& choice : choices) list.push_back(entry(rematerialize(joint, choice.remade)));
  using ashlar::Recompute;
  return {{"nodes", joint.nodes.size()},
          {"seconds", seconds.count()},
          {"classic",
           {{"cheap", entry(recompute(joint, Recompute::cheap))},
            {"selective", entry(recompute(joint, Recompute::selective))},
            {"per-unit", entry(recompute(joint, Recompute::per_unit))}}},
          {"choices", std::move(list)}};
}

}  // namespace

int main(int argc, char** argv) {
  std::string model = "gpt2";
  ashlar::GptTrace how{
      .batch = 4, .sequence = 1024, .dtype = ashlar::DType::f32, .dropout = 0, .frozen = {}};
  int ranks = 2;
  CLI::App app("What a memory budget costs.", "perf_recompute");
  app.add_option("--model", model);
  app.add_option("--batch", how.batch);
  app.add_option("--seq", how.sequence);
  app.add_option("--ranks", ranks);
  CLI11_PARSE(app, argc, argv);
  const ordered_json result{{"benchmark", "recompute"},
                            {"hardware", hardware()},
                            {"model", model},
                            {"batch", how.batch},
                            {"seq", how.sequence},
                            {"ranks", ranks},
                            {"result", measure(ashlar::gpt_config(model), how, ranks)}};
  std::puts(result.dump(2).c_str());
}
