// What a memory budget costs: the choices that the compiler has for one rank at ZeRO stage 3,
// planned, not run, for a GPT, a Llama of about its size and a small U-Net. Prints one JSON object.
// Flags: --model NAME or config.json (gpt2), --batch B (4), --seq T (1024), --ranks N (2).
// `seconds` is the search for all choices; operations are shares of a step's without
// recomputation, activations are shares of the peak without it.
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "ashlar/nn/language_model.hpp"
#include "graph/cost.hpp"
#include "graph/recompute_search.hpp"
#include "hardware.hpp"
#include "ops/product/machine.hpp"
#include "sharding/train_step_parts.hpp"
#include "timing.hpp"
#include "unet.hpp"

namespace {

using nlohmann::ordered_json;

struct Planner {
  ashlar::FlatLayout layout;
  ashlar::ShardOptions options;
  ashlar::Backend backend = ashlar::host_backend(1);

  ashlar::Graph step(const ashlar::Graph& graph) const {
    return shard_step(graph, layout, options, backend);
  }
  ashlar::PeakBytes operator()(const ashlar::Graph& sharded) const {
    ashlar::StateLayout states;
    return planned_peak(compile(sharded, {}, backend, states), states);
  }
};

/// GPT-2 124M's size, in Llama's way: grouped queries, gated MLP, no biases.
ashlar::LlamaConfig llama_124m() {
  return {.name = "llama-124m",
          .layers = 12,
          .heads = 12,
          .kv_heads = 4,
          .head_size = 64,
          .width = 768,
          .inner = 2048,
          .positions = 1024,
          .vocabulary = 50257,
          .tied = true};
}

ordered_json measure(const ashlar::LossModel& model, int ranks) {
  ashlar::TrainConfig train;
  train.zero.stage = 3;
  const ashlar::ShardOptions options = shard_options(train, ranks);
  const ashlar::Graph joint = trace_training(model, options);
  const Planner plan{ashlar::FlatLayout(joint.parameters, joint.units, ranks), options};
  const auto start = ashlar::perf::Clock::now();
  const auto choices =
      recompute_choices(joint, plan.backend, true, [&](const ashlar::Graph& graph) {
        const ashlar::Graph sharded = plan.step(graph);
        return ashlar::PlannedHeight{plan(sharded).total, std::ssize(sharded.nodes)};
      });
  const double seconds = ashlar::perf::seconds_since(start);

  constexpr auto kActivation = static_cast<std::size_t>(ashlar::Category::activation);
  const double work = flops_of(joint);
  const auto all = static_cast<double>(plan(plan.step(joint)).peak[kActivation]);
  const auto entry = [&](const ashlar::Graph& graph) {
    const ashlar::PeakBytes peak = plan(plan.step(graph));
    return ordered_json{{"total_bytes", peak.total},
                        {"activation_bytes", peak.peak[kActivation]},
                        {"activation_share", static_cast<double>(peak.peak[kActivation]) / all},
                        {"extra_operations", flops_of(graph) / work - 1}};
  };
  ordered_json list = ordered_json::array();
  for (const auto& choice : choices) list.push_back(entry(rematerialize(joint, choice.remade)));
  using ashlar::Recompute;
  return {{"nodes", joint.nodes.size()},
          {"seconds", seconds},
          {"classic",
           {{"cheap", entry(recompute(joint, Recompute::cheap))},
            {"selective", entry(recompute(joint, Recompute::selective))},
            {"per-unit", entry(recompute(joint, Recompute::per_unit))}}},
          {"choices", std::move(list)}};
}

}  // namespace

int main(int argc, char** argv) {
  std::string name = "gpt2";
  ashlar::ModelTrace how{
      .batch = 4, .sequence = 1024, .dtype = ashlar::DType::f32, .dropout = 0, .frozen = {}};
  int ranks = 2;
  CLI::App app("What a memory budget costs.", "perf_recompute");
  app.add_option("--model", name);
  app.add_option("--batch", how.batch);
  app.add_option("--seq", how.sequence);
  app.add_option("--ranks", ranks);
  CLI11_PARSE(app, argc, argv);
  ordered_json models = ordered_json::object();
  for (const ashlar::LanguageModel& model :
       {ashlar::language_model(name), ashlar::LanguageModel(llama_124m())})
    models[model.name()] = measure([&](ashlar::Tracer& t) { return model.loss(t, how); }, ranks);
  models["unet"] = measure([](ashlar::Tracer& t) { return unet_loss(t, {}); }, ranks);
  const ordered_json result{{"benchmark", "recompute"}, {"hardware", hardware()},
                            {"batch", how.batch},       {"seq", how.sequence},
                            {"ranks", ranks},           {"models", std::move(models)}};
  std::puts(result.dump(2).c_str());
}
