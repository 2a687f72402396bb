// A small Llama against PyTorch (tests/oracle/llama_models.py), and against itself however it is
// sharded.
#include <doctest/doctest.h>

#include <bit>
#include <fstream>
#include <nlohmann/json.hpp>

#include "ashlar/communicator.hpp"
#include "ashlar/nn/language_model.hpp"
#include "ashlar/pretrained.hpp"
#include "support/temporary_folder.hpp"
#include "train/oracle.hpp"

namespace ashlar {
namespace {

const std::filesystem::path kFolder = kData / "llama_untied";
constexpr std::int64_t kBatch = 3, kSequence = 16;

LanguageModel stored_model() { return language_model((kFolder / "config.json").string()); }

/// The oracle's steps. @return the parameters after them, on rank 0.
ParameterValues five_steps(Communicator& world, int stage) {
  const auto numbers = nlohmann::json::parse(std::ifstream(kFolder / "steps.json"));
  const LanguageModel model = stored_model();
  TrainConfig config;
  config.zero.stage = stage;
  config.zero.bucket_bytes = 1 << 14;
  config.optimizer = AdamW{1e-3, 0.9, 0.95, 1e-8, 0.1};
  config.schedule.lr = 1e-3;
  config.clip = numbers.at("clip");
  config.samples = kBatch / world.size();
  config.poison = true;
  const ModelTrace how{config.samples, kSequence, DType::f32, 0, {}};
  TrainStep train(
      world, [&](Tracer& t) { return model.loss(t, how); }, config);
  load_pretrained(world, kFolder, train);
  SafetensorsFile tensors(kFolder / "steps.safetensors");
  for (const auto& expected : numbers.at("steps")) {
    const StepResult result = train.step([&](std::int64_t, const Batch& batch) {
      const std::int64_t count = config.samples * kSequence;
      for (const char* name : {"tokens", "targets"})
        tensors.read(name, world.rank() * count, {batch.at(name).data, DType::i32, {count}});
    });
    CHECK(result.loss == doctest::Approx(expected.at("loss").get<double>()).epsilon(1e-5));
    CHECK(result.grad_norm ==
          doctest::Approx(expected.at("grad_norm").get<double>()).epsilon(1e-5));
  }
  return read_parameters(world, train);
}

Parameter named(const std::string& name) {
  Parameter parameter;
  parameter.name = name;
  return parameter;
}

struct Run {
  DType dtype = DType::f32;
  bool tied = false;
  std::int64_t accumulate = 1;
  MicroBatchOrder order = MicroBatchOrder::micro_batches;
  ReduceWhen reduce = ReduceWhen::last;
  Recompute recompute = Recompute::automatic;
};

/// Losses of a few clipped steps with dropout on made-up tokens; the plan is what the run counts.
std::vector<std::uint32_t> losses(int ranks, int stage, const Run& run) {
  LlamaConfig small{.layers = 2, .heads = 4, .kv_heads = 2, .head_size = 6, .width = 20};
  small.inner = 28;
  small.vocabulary = 31;
  small.positions = 9;
  small.tied = run.tied;
  const LanguageModel model = small;
  std::vector<std::uint32_t> bits;
  launch_threads(ranks, [&](Communicator& world) {
    TrainConfig config;
    config.zero.stage = stage;
    config.zero.bucket_bytes = 1 << 12;
    config.precision = {run.dtype, run.dtype};
    config.schedule.lr = 0.01;
    config.clip = 0.5;
    config.micro_batches = run.accumulate;
    config.reduce = run.reduce;
    config.order = run.order;
    config.recompute = run.recompute;
    config.samples = 2;
    config.poison = true;
    const ModelTrace how{2, 9, run.dtype, 0.1, {"layers.0.mlp"}};
    TrainStep train(
        world, [&](Tracer& t) { return model.loss(t, how); }, config);
    std::vector<std::uint32_t> mine;
    for (int step = 0; step < 8; ++step) {
      const StepResult result = train.step([&](std::int64_t micro_batch, const Batch& batch) {
        const auto tokens = batch.at("tokens").span<std::int32_t>();
        const auto targets = batch.at("targets").span<std::int32_t>();
        for (std::size_t i = 0; i < tokens.size(); ++i) {
          tokens[i] = static_cast<std::int32_t>(
              (i * i + 7 * static_cast<std::size_t>(micro_batch + 3 * world.rank())) % 31);
          targets[i] = (5 * tokens[i] + 2) % 31;
        }
      });
      mine.push_back(std::bit_cast<std::uint32_t>(result.loss));
      CHECK(result.memory.peak == train.planned().peak);
      CHECK(result.memory.total == train.planned().total);
    }
    if (world.rank() == 0) bits = mine;
  });
  return bits;
}

}  // namespace

TEST_CASE("llama: a config.json gives what it leaves out transformers' defaults; ours reads back") {
  const TemporaryFolder folder;
  const std::string sizes = R"("hidden_size": 48, "intermediate_size": 100, "num_hidden_layers": 3,
      "num_attention_heads": 6, "max_position_embeddings": 64, "vocab_size": 99)";
  const auto read = [&](const std::string& more) {
    return llama_config(folder.write("config.json", "{" + sizes + more + "}"));
  };
  const LlamaConfig plain = read("");
  CHECK(plain.kv_heads == 6);
  CHECK(plain.head_size == 8);
  CHECK(plain.epsilon == 1e-6);
  CHECK(plain.rotary_base == 10000);
  CHECK(!plain.tied);
  const LlamaConfig full = read(R"(, "num_key_value_heads": 2, "head_dim": 10, "rope_theta": 7e5,
      "rms_norm_eps": 1e-5, "tie_word_embeddings": true, "rope_scaling": null, "mlp_bias": null,
      "bos_token_id": 7, "eos_token_id": [8, 98])");
  const std::string json = to_config_json(full, "float32");
  const LlamaConfig again = llama_config(folder.write("config.json", json));
  CHECK(again.heads == 6);
  CHECK(again.kv_heads == 2);
  CHECK(again.head_size == 10);
  CHECK(again.rotary_base == 7e5);
  CHECK(again.epsilon == 1e-5);
  CHECK(again.tied);
  CHECK(again.begin_tokens == std::vector<std::int64_t>{7});
  CHECK(again.end_tokens == std::vector<std::int64_t>{8, 98});
  CHECK(to_config_json(again, "float32") == json);
  const LlamaConfig newer =
      read(R"(, "rope_parameters": {"rope_type": "default", "rope_theta": 5}, "rope_theta": 6)");
  CHECK(newer.rotary_base == 5);
}

TEST_CASE("llama: the family is model_type's, and GPT-2 where there is none") {
  const TemporaryFolder folder;
  const std::string gpt2 = R"({"n_layer": 1, "n_head": 1, "n_embd": 8, "n_positions": 8,
      "vocab_size": 11})";
  const auto type_of = [](const LanguageModel& model) {
    return nlohmann::json::parse(model.config_json("float32"))["model_type"].get<std::string>();
  };
  CHECK(type_of(language_model(folder.write("config.json", gpt2))) == "gpt2");
  CHECK(type_of(stored_model()) == "llama");
  CHECK(type_of(language_model("tiny")) == "gpt2");
  CHECK(stored_model().vocabulary() == 61);
  CHECK(!stored_model().tied());
}

TEST_CASE("llama: gradients are PyTorch's to 1e-5 in fp32, and near in bf16") {
  PretrainedWeights weights(kFolder);
  SafetensorsFile tensors(kFolder / "steps.safetensors");
  const auto numbers = nlohmann::json::parse(std::ifstream(kFolder / "steps.json"));
  const LanguageModel model = stored_model();
  for (const auto& [dtype, tolerance] : {std::pair{DType::f32, 1e-5}, {DType::bf16, 3e-2}}) {
    const ModelTrace how{kBatch, kSequence, dtype, 0, {}};
    float loss = 0;
    const auto ours = gradients([&](Tracer& t) { return model.loss(t, how); }, dtype, loss,
                                [&](const ValueInfo& value, TensorView to) {
                                  if (value.input == InputKind::parameter)
                                    weights.read_part(named(value.name), 0, to);
                                  else
                                    tensors.read(value.name, 0, to);
                                });
    CHECK(loss == doctest::Approx(numbers.at("steps")[0].at("loss").get<double>())
                      .epsilon(dtype == DType::f32 ? 1e-6 : 1e-2));
    CHECK(ours.size() == 21);
    for (const auto& [name, values] : ours) {
      const auto expected =
          read_floats(tensors, "gradient." + name, static_cast<std::int64_t>(values.size()));
      CAPTURE(name);
      CHECK(distance(values, expected) <= tolerance * norm(expected));
    }
  }
}

TEST_CASE("llama: five AdamW steps are PyTorch's to 1e-5 on one and on three ranks") {
  for (const auto& [ranks, stage] : {std::pair{1, 0}, {1, 3}, {3, 0}, {3, 1}, {3, 2}, {3, 3}}) {
    launch_threads(ranks, [&, stage = stage](Communicator& world) {
      SafetensorsFile tensors(kFolder / "steps.safetensors");
      for (const auto& [name, values] : five_steps(world, stage)) {
        const auto expected =
            read_floats(tensors, "step5." + name, static_cast<std::int64_t>(values.size()));
        CAPTURE(name);
        CHECK(distance(values, expected) <= 1e-5 * norm(expected));
      }
    });
  }
}

TEST_CASE("llama: losses have the same bits at every stage, order and recomputation") {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const bool tied : {false, true}) {
      for (const int ranks : {1, 2, 3}) {
        CAPTURE(ranks);
        const auto one = losses(ranks, 0, {dtype, tied});
        const auto two = losses(ranks, 0, {dtype, tied, 2});
        CHECK(std::bit_cast<float>(one.back()) < std::bit_cast<float>(one.front()));
        CHECK(one != two);
        for (const int stage : {1, 2, 3}) {
          CAPTURE(stage);
          CHECK(losses(ranks, stage, {dtype, tied}) == one);
          CHECK(losses(ranks, stage,
                       {dtype, tied, 1, MicroBatchOrder::micro_batches, ReduceWhen::last,
                        stage == 1 ? Recompute::none : Recompute::per_unit}) == one);
        }
        CHECK(losses(ranks, 3, {dtype, tied, 2}) == two);
        CHECK(losses(ranks, 3, {dtype, tied, 2, MicroBatchOrder::layers}) == two);
      }
    }
  }
}

}  // namespace ashlar
