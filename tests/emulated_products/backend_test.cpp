// What a step on a GPU runs: every op of every program that train_gpt compiles is served, by a
// library or by a kernel of our own, with its workspace in the plan. No device is asked.
#include <doctest/doctest.h>

#include <set>
#include <string>

#include "ashlar/error.hpp"
#include "ashlar/nn/gpt.hpp"
#include "ashlar/nn/language_model.hpp"
#include "ashlar/nn/llama.hpp"
#include "cuda/attention.hpp"
#include "cuda/products.hpp"
#include "graph/cost.hpp"
#include "ops/cuda_backend.hpp"
#include "sharding/compile_step.hpp"

namespace ashlar {
namespace {

struct Setting {
  DType dtype = DType::f32;
  int stage = 0, ranks = 1;
  double dropout = 0, clip = 0;
  Recompute recompute = Recompute::cheap;
  MicroBatchOrder order = MicroBatchOrder::micro_batches;
  DType wire = DType::f32;
  int group = 0;
};

/// As train_gpt's: the step, validation, sampling.
CompiledStep compiled(const LanguageModel& model, const Setting& s) {
  const ModelTrace how{2, 16, s.dtype, s.dropout, {}}, plain{2, 16, s.dtype, 0, {}},
      one{1, 16, s.dtype, 0, {}};
  TrainConfig config;
  config.zero = {s.stage, 1 << 16, 1};
  config.zero.group = s.group;
  config.precision = {s.dtype, s.wire};
  config.clip = s.clip;
  config.micro_batches = 2;
  config.recompute = s.recompute;
  config.order = s.order;
  return compile_step([&](Tracer& t) { return model.loss(t, how); }, config, s.ranks,
                      cuda_backend(1, 90),
                      {[&](Tracer& t) { t.output("loss", model.loss(t, plain)); },
                       [&](Tracer& t) { model.next_token(t, one); }});
}

/// Checks a program. @return the names of the ops that kernels run
std::set<std::string> check_served(const Program& program) {
  std::set<std::string> ops;
  for (const Step& step : program.steps) {
    const Node& node = program.graph.nodes[static_cast<std::size_t>(step.node)];
    if (node.op->run == nullptr) continue;
    CAPTURE(node.op->name);
    const DeviceKernel* const kernel = device_kernel(node, program.backend);
    REQUIRE(kernel != nullptr);
    ops.insert(std::string(node.op->name));
    if (cuda::find_product(node.op->name) == nullptr) continue;
    CHECK(kernel == cuda::find_product(node.op->name));
    CHECK(step.workspace.present);
    CHECK(extent_bytes(step.workspace) >= cuda::kProductWorkspace);
  }
  require_kernels(program.graph, program.backend);
  detect_races(program, 1);
  return ops;
}

}  // namespace

TEST_CASE("backend: every program that train_gpt compiles is served on a GPU") {
  std::vector<Setting> settings;
  for (const DType dtype : {DType::f32, DType::bf16})
    for (const int stage : {0, 1, 2, 3})
      for (const int ranks : {1, 2})
        settings.push_back({dtype, stage, ranks, 0.1, 1.0, Recompute::cheap,
                            MicroBatchOrder::micro_batches, dtype});
  for (const Recompute how : {Recompute::none, Recompute::selective, Recompute::per_unit})
    settings.push_back({DType::bf16, 3, 2, 0.1, 0, how});
  settings.push_back({DType::bf16, 3, 2, 0, 1.0, Recompute::per_unit, MicroBatchOrder::layers});
  settings.push_back({DType::f32, 0, 1});
  for (const int stage : {0, 2, 3})
    settings.push_back({DType::bf16, stage, 4, 0, 1.0, Recompute::cheap,
                        MicroBatchOrder::micro_batches, DType::bf16, 2});
  std::set<std::string> ops;
  GptConfig untied = gpt_config("tiny");
  untied.tied = false;
  for (const LanguageModel& model :
       {LanguageModel(gpt_config("tiny")), LanguageModel(untied), LanguageModel(LlamaConfig{})}) {
    for (const Setting& setting : settings) {
      CAPTURE(model.name());
      CAPTURE(setting.stage);
      for (const Program& program : compiled(model, setting).programs)
        ops.merge(check_served(program));
    }
  }
  for (const char* op :
       {"causal_attention_backward", "grouped_query_attention", "dropout", "update",
        "gradient_norm", "round_sums", "linear_cross_entropy_with_gradient", "linear", "matmul",
        "linear_weight_gradient", "linear_gelu_backward"})
    CHECK_MESSAGE(ops.contains(op), op);
  CHECK_FALSE(ops.contains("gelu_columns_backward"));
  MESSAGE(ops.size() << " ops");
}

TEST_CASE("backend: an op that nothing serves is named before a step begins") {
  const Backend backend = cuda_backend(3, 90);
  CHECK(backend.device == DeviceType::cuda);
  CHECK(backend.threads == 3);
  CHECK(backend.cpu == "sm_90");
  CHECK(backend.find_kernel("no_such_op") == nullptr);
  CHECK(backend.find_kernel("matmul") == cuda::find_product("matmul"));
  CHECK(backend.find_kernel("gelu") == cuda::find_kernel("gelu"));
  const std::string_view attention = "causal_attention_backward";
  for (const int sm : {80, 89, 90, 100})
    for (const bool deterministic : {true, false}) {
      const DeviceKernel* library = cuda::find_attention(attention, sm, deterministic);
      CHECK(cuda_backend(1, sm, deterministic).find_kernel(attention) ==
            (library != nullptr ? library : cuda::find_kernel(attention)));
    }
}

}  // namespace ashlar
