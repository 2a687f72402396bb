#include "cli/report_step.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <tuple>

#include "ashlar/error.hpp"
#include "cli/flags/flag_values.hpp"
#include "cli/flags/seat.hpp"
#include "ops/cuda_backend.hpp"
#include "ops/product/machine.hpp"

namespace ashlar::cli {
namespace {

struct Gpu {
  std::string_view name;
  int sm;
};
constexpr std::array kGpus{Gpu{"sm_80", 80}, Gpu{"sm_90", 90}, Gpu{"sm_100", 100}};

OptimizerConfig rule_of(const std::string& name) {
  if (name == "adamw") return AdamW{};
  Sgd rule;
  if (name == "sgd") rule.momentum = 0;
  return rule;
}

Backend backend_of(const ReportOptions& o) {
  const int threads = o.threads > 0 ? o.threads : default_threads(o.ranks);
  const auto gpu = std::ranges::find(kGpus, o.backend, &Gpu::name);
  if (gpu != kGpus.end()) return cuda_backend(threads, gpu->sm);
  return {o.backend.empty() ? cpu_name() : o.backend, threads};
}

void check_backend(const ReportOptions& o) {
  if (o.backend.empty()) return;
  try {
    backend_of(o);
  } catch (const CudaError& error) {
    throw InvalidArgument(fmt::format("--backend {}: {}", o.backend, error.what()));
  }
}

/// Ashlar has none of it; the tools of --compat do.
void check_parallel(const ReportOptions& o) {
  const bool eleuther = o.compat == "eleuther";
  for (const auto& [flag, value, known] :
       {std::tuple{"tensor-parallel", o.tensor_parallel, eleuther || o.compat == "megatron"},
        std::tuple{"pipeline-parallel", o.pipeline_parallel, eleuther}}) {
    require_at_least(value, 1, flag);
    require(value == 1 || known, flag, std::to_string(value),
            "not supported but for what another tool prints of it (--compat eleuther)");
    require(o.ranks % value == 0, flag, std::to_string(value),
            fmt::format("must divide the {} ranks", o.ranks));
  }
  const std::int64_t both = std::int64_t{o.tensor_parallel} * o.pipeline_parallel;
  require(o.ranks % both == 0, "pipeline-parallel", std::to_string(o.pipeline_parallel),
          fmt::format("must divide the {} ranks together with --tensor-parallel", o.ranks));
  if (o.partition_activations && !eleuther)
    throw InvalidArgument("--partition-activations: is of --compat eleuther");
}

}  // namespace

std::vector<std::string> report_backends() {
  std::vector<std::string> names{"zen5",           "zen4",  "sapphire_rapids", "emerald_rapids",
                                 "granite_rapids", "amx",   "avx512_bf16",     "avx512",
                                 "avx2",           "x86_64"};
  for (const Gpu& gpu : kGpus) names.emplace_back(gpu.name);
  return names;
}

void check(const ReportOptions& o) {
  check(static_cast<const StepOptions&>(o));
  check_ranks(o.ranks);
  require_groups(o, o.ranks);
  require_at_least(o.ranks_per_node, 0, "ranks-per-node");
  const int node = o.ranks_per_node;
  require(node == 0 || o.ranks < node || o.ranks % node == 0, "ranks", std::to_string(o.ranks),
          fmt::format("must be a multiple of the {} ranks of a node", node));
  check_parallel(o);
  refuse(OtherParallelism{.expert = o.expert_parallel});
  check_backend(o);
  require_at_least<std::int64_t>(o.positions, 0, "positions");
  require(o.validation >= 0 && o.validation < 1, "validation", fmt::format("{}", o.validation),
          "a fraction in [0, 1)");
  require_at_least<std::int64_t>(o.sample, 0, "sample");
}

LanguageModel report_model(const ReportOptions& o) {
  const LanguageModel model = language_model(o.model);
  return o.positions > 0 ? model.with_positions(o.positions) : model;
}

LossModel report_loss(const ReportOptions& o) {
  return [model = report_model(o), how = model_trace(o, o.batch, o.dropout)](Tracer& t) {
    return model.loss(t, how);
  };
}

TrainConfig report_config(const ReportOptions& o) {
  TrainConfig config = step_config(o);
  config.optimizer = rule_of(o.optimizer);
  config.threads = backend_of(o).threads;
  return config;
}

CompiledStep compiled(const ReportOptions& o) {
  const LanguageModel model = report_model(o);
  std::vector<ForwardModel> forwards;
  if (o.validation > 0)
    forwards.push_back(
        [&](Tracer& t) { t.output("loss", model.loss(t, model_trace(o, o.batch, 0))); });
  if (o.sample > 0)
    forwards.push_back([&](Tracer& t) { model.next_token(t, model_trace(o, 1, 0)); });
  CompiledStep step =
      compile_step(report_loss(o), report_config(o), o.ranks, backend_of(o), forwards);
  require_frozen(o, step.layout.parameters());
  return step;
}

StepReport reported(const ReportOptions& o, const CompiledStep& step) {
  StepReport report;
  report.model = o.model;
  report.stage = o.stage;
  report.precision = o.precision;
  report.backend = step.programs[0].backend;
  report.ranks_per_node = std::min(o.ranks, o.ranks_per_node > 0 ? o.ranks_per_node : 8);
  report.footprint = footprint(step);
  return report;
}

std::optional<std::int64_t> largest_batch(const ReportOptions& options, std::int64_t bytes) {
  const auto fits = [&](std::int64_t batch) {
    ReportOptions o = options;
    o.batch = batch;
    if (batch * o.seq > std::int64_t{1} << 31) return false;  // as --batch is checked
    return compiled(o).planned().total <= bytes;
  };
  if (!fits(1)) return std::nullopt;
  std::int64_t low = 1;
  while (fits(2 * low)) low *= 2;
  std::int64_t high = 2 * low;  // does not fit
  while (high - low > 1) {
    const std::int64_t middle = low + (high - low) / 2;
    (fits(middle) ? low : high) = middle;
  }
  return low;
}

}  // namespace ashlar::cli
