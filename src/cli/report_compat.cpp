// ashlar report --compat: other tools' numbers beside ours.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "ashlar/memory_resource.hpp"
#include "cli/flags/flag_values.hpp"
#include "cli/report_step.hpp"
#include "report/compat.hpp"

namespace ashlar::cli {
namespace {

using Json = nlohmann::ordered_json;

/// What the tools count of a model.
struct Counted {
  double parameters = 0;
  double largest_layer = 0;  // of a module, its own parameters
  double exact_states = 0;   // ours, bytes of a rank; 0: none
};

Counted count(const ReportOptions& o, bool closed) {
  if (closed) return {o.parameters, o.largest_layer, 0};
  const CompiledStep step = compiled(o);
  std::map<std::string_view, double> modules;
  for (const Parameter& p : step.layout.parameters()) {
    const std::string_view name = p.name;
    modules[name.substr(0, name.rfind('.'))] += static_cast<double>(p.shape.elements());
  }
  double largest = 0;
  for (const auto& [name, elements] : modules) largest = std::max(largest, elements);
  const ModelStateBytes states = footprint(step).model_state;
  return {static_cast<double>(step.layout.elements()), largest, static_cast<double>(states.sum())};
}

double gib(double bytes) { return bytes / (1 << 30); }

void add_zero_paper(const ReportOptions& o, const Counted& c, Json& rows) {
  for (int stage = 0; stage <= 3; ++stage)
    rows.push_back({{"name", fmt::format("stage {}", stage)},
                    {"gigabytes", compat::zero_paper_bytes(c.parameters, o.ranks, stage) / 1e9}});
}

void add_deepspeed(const ReportOptions& o, const Counted& c, Json& rows) {
  compat::DeepSpeedCase zero;
  zero.parameters = c.parameters;
  zero.largest_layer = c.largest_layer;
  zero.ranks_per_node = std::min(o.ranks, o.ranks_per_node > 0 ? o.ranks_per_node : 8);
  zero.nodes = (o.ranks + zero.ranks_per_node - 1) / zero.ranks_per_node;
  const auto add = [&](std::string name, const compat::HostAndDevice& bytes) {
    rows.push_back(
        {{"name", std::move(name)}, {"cpu_gib", gib(bytes.host)}, {"gpu_gib", gib(bytes.device)}});
  };
  for (const bool offload : {true, false}) {
    zero.offload_optimizer = offload;
    add(fmt::format("zero2 offload_optimizer={:d}", offload), compat::deepspeed_zero2(zero));
  }
  for (const bool offload : {true, false})
    for (const bool parameters : {true, false})
      for (const bool init : {true, false}) {
        if (parameters && !offload) continue;
        zero.offload_optimizer = offload;
        zero.offload_parameters = parameters;
        zero.zero_init = init;
        add(fmt::format("zero3 offload_optimizer={:d} offload_param={:d} zero_init={:d}", offload,
                        parameters, init),
            compat::deepspeed_zero3(zero));
      }
}

void add_accelerate(const Counted& c, Json& rows) {
  for (const auto& [name, bytes] : {std::pair{"float32", 4.0}, std::pair{"float16", 2.0},
                                    std::pair{"int8", 1.0}, std::pair{"int4", 0.5}}) {
    const auto estimate = compat::accelerate(c.parameters, c.largest_layer, bytes);
    rows.push_back({{"name", name},
                    {"largest_layer_mib", estimate.largest_layer / (1 << 20)},
                    {"total_mib", estimate.total / (1 << 20)},
                    {"training_mib", estimate.training / (1 << 20)}});
  }
}

compat::TransformerShape shape_of(const ReportOptions& o) {
  const LanguageModel model = report_model(o);
  return {model.layers(), model.heads(), model.width(), o.seq, o.batch, o.tensor_parallel};
}

void add_megatron(const ReportOptions& o, Json& rows) {
  for (const auto& [name, how] :
       {std::pair{"no recomputation", compat::Activations::tensor},
        std::pair{"no recomputation, sequence parallel", compat::Activations::sequence},
        std::pair{"selective recomputation", compat::Activations::selective},
        std::pair{"selective recomputation, sequence parallel",
                  compat::Activations::sequence_selective},
        std::pair{"full recomputation", compat::Activations::full}})
    rows.push_back(
        {{"name", name}, {"activation_gib", gib(compat::activation_bytes(shape_of(o), how))}});
}

void add_eleuther(const ReportOptions& o, const Counted& c, Json& rows) {
  for (int stage = 0; stage <= 3; ++stage) {
    const auto estimate = compat::eleuther(
        {c.parameters, shape_of(o), o.ranks, stage, o.pipeline_parallel, o.partition_activations});
    rows.push_back({{"name", fmt::format("stage {}", stage)},
                    {"model_gib", gib(estimate.model)},
                    {"gradient_gib", gib(estimate.gradient)},
                    {"optimizer_gib", gib(estimate.optimizer)},
                    {"activation_gib", gib(estimate.activation)},
                    {"communication_gib", gib(estimate.communication)},
                    {"total_gib", gib(estimate.sum())}});
  }
}

const std::map<std::string, std::string>& reasons() {
  static const std::map<std::string, std::string> why{
      {"zero-paper",
       "model states alone, in 10^9 bytes; ours adds the padding of flats, and counts gathered "
       "units, gradient buckets, activations and workspaces"},
      {"deepspeed",
       "states alone: 18 bytes per parameter where gradients are f32 (ours 16 without "
       "accumulation), a largest layer of f32 for all buffers, hosts times 1.5"},
      {"accelerate",
       "four times the weights for Adam: no activations, no buffers, no sharding, no masters"},
      {"eleuther",
       "gradients always of 4 bytes, activations of a layer by 34 s b h, buffers of DeepSpeed's "
       "default sizes; ours keeps 16-bit gradients without accumulation and plans its buffers"},
      {"megatron",
       "16-bit activations of a layer with attention's matrix and dropout masks (Korthikanti et "
       "al., 2022); ours never stores that matrix, and plans buffers in one arena"}};
  return why;
}

}  // namespace

std::vector<std::string> compat_names() {
  std::vector<std::string> names;
  for (const auto& [name, why] : reasons()) names.push_back(name);
  return names;
}

int report_compat(const ReportOptions& o, bool closed) {
  require(!closed || (o.compat != "megatron" && o.compat != "eleuther"), "compat", o.compat,
          "needs --model");
  Json rows = Json::array();
  const Counted counted = count(o, closed);
  if (o.compat == "zero-paper") add_zero_paper(o, counted, rows);
  if (o.compat == "deepspeed") add_deepspeed(o, counted, rows);
  if (o.compat == "accelerate") add_accelerate(counted, rows);
  if (o.compat == "megatron") add_megatron(o, rows);
  if (o.compat == "eleuther") add_eleuther(o, counted, rows);
  Json all{{"compat", o.compat},
           {"parameters", counted.parameters},
           {"largest_layer", counted.largest_layer},
           {"rows", rows},
           {"why", reasons().at(o.compat)}};
  if (counted.exact_states > 0) all["our_model_state_bytes"] = counted.exact_states;
  if (o.json) {
    fmt::print("{}\n", all.dump(2));
    return 0;
  }
  for (const Json& row : rows) {
    fmt::print("{:<52}", row["name"].get<std::string>());
    for (const auto& [key, value] : row.items())
      if (key != "name") fmt::print("  {} {:.2f}", key, value.get<double>());
    fmt::print("\n");
  }
  if (counted.exact_states > 0)
    fmt::print("ours, stage {}: {} of model state\n", o.stage,
               format_bytes(static_cast<std::int64_t>(counted.exact_states)));
  fmt::print("they differ: {}\n", reasons().at(o.compat));
  return 0;
}

}  // namespace ashlar::cli
