// Against PyTorch: gradients and five AdamW steps of a two-layer GPT, logits of transformers'
// GPT-2. The numbers and the scripts that made them are in tests/oracle.
#include <doctest/doctest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "ashlar/communicator.hpp"
#include "ashlar/nn/gpt.hpp"
#include "ashlar/pretrained.hpp"
#include "ashlar/train_step.hpp"
#include "graph/evaluate.hpp"
#include "sharding/safetensors.hpp"
#include "sharding/train_step_parts.hpp"

namespace ashlar {
namespace {

const std::filesystem::path kData = std::filesystem::path(ASHLAR_TEST_DIR) / "oracle" / "data";

struct Oracle {
  SafetensorsFile tensors{kData / "gpt_steps.safetensors"};
  nlohmann::json numbers = nlohmann::json::parse(std::ifstream(kData / "gpt_steps.json"));
  GptConfig config{"oracle", 2, 4, 32, 16, 96, 128, true, 1e-5};
  std::int64_t batch = 3;

  std::vector<float> read(const std::string& name, std::int64_t elements) {
    std::vector<float> values(static_cast<std::size_t>(elements));
    tensors.read(name, 0, {values.data(), DType::f32, {elements}});
    return values;
  }
  std::vector<std::int32_t> integers(const std::string& name) {
    std::vector<std::int32_t> values(static_cast<std::size_t>(batch * config.positions));
    tensors.read(name, 0, {values.data(), DType::i32, {batch * config.positions}});
    return values;
  }
};

double norm(std::span<const float> x) {
  double sum = 0;
  for (const float v : x) sum += static_cast<double>(v) * v;
  return std::sqrt(sum);
}

double distance(std::span<const float> a, std::span<const float> b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += std::pow(static_cast<double>(a[i]) - b[i], 2);
  return std::sqrt(sum);
}

/// Softmax does not see the keys' bias: its gradient is rounding, which AdamW turns into steps of
/// any sign.
void forget_key_bias(const std::string& name, std::vector<float>& values) {
  if (!name.ends_with("attn.c_attn.bias")) return;
  const auto third = static_cast<std::ptrdiff_t>(values.size() / 3);
  std::fill(values.begin() + third, values.begin() + 2 * third, 0.0F);
}

/// Gradients of the oracle's model in one type, by evaluating the differentiated graph.
std::map<std::string, std::vector<float>> gradients(Oracle& oracle, DType dtype, float& loss) {
  ShardOptions options;
  options.precision = {dtype, dtype};
  const GptTrace how{oracle.batch, oracle.config.positions, dtype, 0, {}};
  const Graph graph =
      trace_training([&](Tracer& t) { return gpt_loss(t, oracle.config, how); }, options);
  std::vector<Buffer> memory;
  std::map<std::string, TensorView> inputs;
  for (const ValueId id : graph.inputs) {
    const ValueInfo& value = graph[id];
    memory.emplace_back(host_memory(), value.type.bytes(), Category::input);
    const TensorView view(memory.back().data(), value.type.dtype, value.type.shape);
    const TensorView flat(view.data, view.dtype, {view.elements()});
    if (value.input == InputKind::parameter) {
      oracle.tensors.read("initial." + value.name, 0, flat);
    } else if (value.name == kLossCotangent) {
      *view.as<float>() = 1;
    } else {
      oracle.tensors.read(value.name, 0, flat);
    }
    inputs.emplace(value.name, view);
  }
  const Tensors outputs = evaluate(graph, inputs, {});
  loss = *outputs.at("loss").second.as<float>();
  std::map<std::string, std::vector<float>> result;
  for (const Parameter& parameter : graph.parameters) {
    const TensorView view = outputs.at(gradient_name(parameter.name)).second;
    auto& values = result[parameter.name];
    for (std::int64_t i = 0; i < view.elements(); ++i) {
      values.push_back(dtype == DType::f32 ? view.as<float>()[i]
                                           : static_cast<float>(view.as<bf16>()[i]));
    }
  }
  return result;
}

constexpr std::pair<int, int> kWorlds[] = {{1, 0}, {1, 3}, {3, 0}, {3, 1}, {3, 2}, {3, 3}};

/// Trains the oracle's steps, holds losses and norms to its own, and returns the parameters (of
/// bf16: the masters) on rank 0.
std::map<std::string, std::vector<float>> five_steps(Communicator& world, Oracle& oracle, int stage,
                                                     DType dtype, bool clipped, double tolerance) {
  TrainConfig config;
  config.zero.stage = stage;
  config.zero.bucket_bytes = 1 << 14;
  config.precision = {dtype, dtype};
  config.optimizer = AdamW{1e-3, 0.9, 0.95, 1e-8, 0.1};
  config.schedule.lr = 1e-3;
  config.clip = clipped ? 1.0 : 0.0;
  config.samples = oracle.batch / world.size();
  config.poison = true;
  const GptTrace how{config.samples, oracle.config.positions, dtype, 0, {}};
  TrainStep train(
      world, [&](Tracer& t) { return gpt_loss(t, oracle.config, how); }, config);
  train.load_parameters([&](const Parameter& parameter, std::int64_t first, TensorView part) {
    oracle.tensors.read("initial." + parameter.name, first, part);
  });
  const auto tokens = oracle.integers("tokens"), targets = oracle.integers("targets");
  const std::string variant =
      std::string("adamw") + (dtype == DType::bf16 ? "_bf16" : "") + (clipped ? "_clipped" : "");
  for (const auto& expected : oracle.numbers.at("variants").at(variant)) {
    const StepResult result = train.step([&](std::int64_t, const Batch& batch) {
      const std::int64_t count = config.samples * oracle.config.positions,
                         first = world.rank() * count;
      std::copy_n(tokens.begin() + first, count, batch.at("tokens").as<std::int32_t>());
      std::copy_n(targets.begin() + first, count, batch.at("targets").as<std::int32_t>());
    });
    CHECK(result.loss == doctest::Approx(expected.at("loss").get<double>()).epsilon(tolerance));
    CHECK(result.grad_norm ==
          doctest::Approx(expected.at("grad_norm").get<double>()).epsilon(tolerance));
  }
  std::map<std::string, std::vector<float>> parameters;
  for (int p = 0; p < static_cast<int>(train.layout().parameters().size()); ++p) {
    const Parameter& parameter = train.layout().parameters()[static_cast<std::size_t>(p)];
    const std::int64_t elements = parameter.shape.elements();
    std::vector<float> values(static_cast<std::size_t>(elements));
    train.read_parameter(p, {values.data(), DType::f32, {elements}});
    if (world.rank() == 0) parameters.emplace(parameter.name, values);
  }
  return parameters;
}

}  // namespace

TEST_CASE("oracle: gradients of a two-layer GPT are PyTorch's to 1e-5 in fp32") {
  Oracle oracle;
  float loss = 0;
  const auto ours = gradients(oracle, DType::f32, loss);
  CHECK(loss == doctest::Approx(oracle.numbers.at("loss").get<double>()).epsilon(1e-6));
  for (auto [name, values] : ours) {
    auto expected = oracle.read("gradient." + name, static_cast<std::int64_t>(values.size()));
    forget_key_bias(name, expected);
    forget_key_bias(name, values);
    CAPTURE(name);
    CHECK(distance(values, expected) <= 1e-5 * norm(expected));
  }
}

TEST_CASE("oracle: bf16 gradients are within 1e-2 in norm") {
  Oracle oracle;
  float loss = 0;
  const auto ours = gradients(oracle, DType::bf16, loss);
  CHECK(loss == doctest::Approx(oracle.numbers.at("loss_of_bf16").get<double>()).epsilon(1e-3));
  double error = 0, size = 0;
  for (const auto& [name, values] : ours) {
    const auto expected =
        oracle.read("gradient_of_bf16." + name, static_cast<std::int64_t>(values.size()));
    error += std::pow(distance(values, expected), 2);
    size += std::pow(norm(expected), 2);
  }
  CHECK(std::sqrt(error / size) <= 1e-2);
}

TEST_CASE(
    "oracle: five AdamW steps are PyTorch's to 1e-5, clipped and not, on one and on three ranks") {
  for (const bool clipped : {false, true}) {
    for (const auto& [ranks, stage] : kWorlds) {
      launch_threads(ranks, [&, ranks = ranks, stage = stage](Communicator& world) {
        Oracle oracle;
        const auto after = five_steps(world, oracle, stage, DType::f32, clipped, 1e-5);
        for (auto [name, values] : after) {
          auto expected = oracle.read((clipped ? "step5_clipped." : "step5.") + name,
                                      static_cast<std::int64_t>(values.size()));
          forget_key_bias(name, expected);
          forget_key_bias(name, values);
          CAPTURE(name);
          CHECK(distance(values, expected) <= 1e-5 * norm(expected));
        }
      });
    }
  }
}

TEST_CASE(
    "oracle: five AdamW steps in bf16 with fp32 masters are within 1e-2 of PyTorch's in norm") {
  for (const bool clipped : {false, true}) {
    for (const auto& [ranks, stage] : kWorlds) {
      launch_threads(ranks, [&, ranks = ranks, stage = stage](Communicator& world) {
        Oracle oracle;
        SafetensorsFile changes(kData / "gpt_steps_bf16.safetensors");
        const auto after = five_steps(world, oracle, stage, DType::bf16, clipped, 1e-2);
        double error = 0, weight = 0, change = 0;
        for (auto [name, values] : after) {
          const auto elements = static_cast<std::int64_t>(values.size());
          auto expected = oracle.read("initial." + name, elements);
          std::vector<float> moved(values.size());
          changes.read((clipped ? "change_clipped." : "change.") + name, 0,
                       {moved.data(), DType::f32, {elements}});
          for (std::size_t i = 0; i < moved.size(); ++i) expected[i] += moved[i];
          for (auto* part : {&values, &expected, &moved}) forget_key_bias(name, *part);
          CAPTURE(name);
          CHECK(distance(values, expected) <= 1e-2 * norm(expected));
          error += std::pow(distance(values, expected), 2);
          weight += std::pow(norm(expected), 2);
          change += std::pow(norm(moved), 2);
        }
        if (world.rank() != 0) return;
        CHECK(std::sqrt(error) <= 1e-2 * std::sqrt(weight));
        CHECK(std::sqrt(error) <= 5e-2 * std::sqrt(change));  // which is 3e-2 of the weights
      });
    }
  }
}

TEST_CASE("oracle: logits after --init are transformers' to 1e-4") {
  for (const char* folder : {"gpt2_tied", "gpt2_untied", "gpt2_sharded"}) {
    for (const int ranks : {1, 3}) {
      launch_threads(ranks, [&](Communicator& world) {
        const GptConfig model = gpt_config((kData / folder / "config.json").string());
        const GptTrace how{2, 12, DType::f32, 0, {}};
        TrainConfig config;
        TrainStep train(world, [&](Tracer& t) { return gpt_loss(t, model, how); }, config,
                        {[&](Tracer& t) { gpt_logits(t, model, how); },
                         [&](Tracer& t) { gpt_next_token(t, model, how); }});
        PretrainedWeights weights(kData / folder);
        weights.require_match(train.layout().parameters());
        train.load_parameters([&](const Parameter& parameter, std::int64_t first, TensorView part) {
          weights.read_part(parameter, first, part);
        });
        SafetensorsFile oracle(kData / folder / "logits.safetensors");
        const Batch outputs = train.forward(0, [&](std::int64_t, const Batch& batch) {
          oracle.read("tokens", 0, {batch.at("tokens").data, DType::i32, {2 * 12}});
        });
        const TensorView ours = outputs.at("logits");
        const std::vector<float> all(ours.as<float>(), ours.as<float>() + ours.elements());
        const Batch last = train.forward(1, [&](std::int64_t, const Batch& batch) {
          oracle.read("tokens", 0, {batch.at("tokens").data, DType::i32, {2 * 12}});
        });
        std::vector<float> expected(static_cast<std::size_t>(ours.elements()));
        oracle.read("logits", 0, {expected.data(), DType::f32, {ours.elements()}});
        for (std::size_t i = 0; i < expected.size(); ++i) {
          CHECK(std::abs(all[i] - expected[i]) <= 1e-4);
        }
        const auto vocabulary = static_cast<std::size_t>(model.vocabulary);
        for (std::size_t b = 0; b < 2; ++b) {
          for (std::size_t v = 0; v < vocabulary; ++v) {
            const float logit = last.at("logits").as<float>()[b * vocabulary + v];
            CHECK(std::abs(logit - expected[(b * 12 + 11) * vocabulary + v]) <= 1e-4);
          }
        }
      });
    }
  }
}

}  // namespace ashlar
