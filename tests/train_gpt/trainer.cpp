// What ranks do together: they fail as one, and a step has no collective for the sake of the file.
#include "train_gpt/trainer.hpp"

#include <doctest/doctest.h>

#include <iterator>
#include <sstream>

#include "ashlar/checkpoint.hpp"
#include "ashlar/error.hpp"
#include "ashlar/pretrained.hpp"
#include "support/temporary_folder.hpp"

using namespace train_gpt;

namespace {

Options small_run(const TemporaryFolder& folder) {
  Options options;
  options.model = folder.write("config.json", R"({"model_type": "gpt2", "n_layer": 1, "n_head": 1,
    "n_embd": 8, "n_positions": 8, "vocab_size": 256})");
  options.synthetic = true;
  options.batch = 1;
  options.seq = 8;
  options.threads = 1;
  options.quiet = true;
  options.timeout = 20;
  return options;
}

ashlar::TrainStep make_step(ashlar::Communicator& world, const Options& options) {
  const ashlar::GptConfig model = ashlar::gpt_config(options.model);
  return {world, [&](ashlar::Tracer& t) { return gpt_loss(t, model, model_trace(options, 1, 0)); },
          train_config(options)};
}

Options parsed(const std::string& line) {
  std::istringstream stream("train_gpt " + line);
  const std::vector<std::string> list{std::istream_iterator<std::string>(stream), {}};
  std::vector<const char*> arguments;
  for (const std::string& word : list) arguments.push_back(word.c_str());
  return parse_options(static_cast<int>(arguments.size()), arguments.data());
}

/// What each rank is told.
template <typename Body>
std::vector<std::string> told(int ranks, const Body& body) {
  std::vector<std::string> messages(static_cast<std::size_t>(ranks));
  ashlar::launch_threads(ranks, [&](ashlar::Communicator& world) {
    world.set_timeout(std::chrono::seconds(10));
    messages[static_cast<std::size_t>(world.rank())] =
        message_of<ashlar::InvalidArgument>([&] { body(world); });
  });
  return messages;
}

}  // namespace

TEST_CASE("trainer: models of bytes have GPT-2's vocabulary with --tokens") {
  Options options;
  CHECK(model_of(options).vocabulary() == 256);
  options.tokens = {"a.bin"};
  for (const char* model : {"tiny", "small", "gpt2"}) {
    options.model = model;
    CHECK(model_of(options).vocabulary() == 50257);
  }
  const TemporaryFolder folder;
  options.model = small_run(folder).model;
  CHECK(model_of(options).vocabulary() == 256);
}

TEST_CASE("trainer: every flag of the step reaches its configuration") {
  const ashlar::TrainConfig config = train_config(parsed(
      "--synthetic --stage 1 --bucket 3KiB --prefetch 4 --overlap off --reshard off "
      "--precision bf16 --reduce-dtype fp32 --lr 0.02 --betas 0.7 0.8 --weight-decay 0.3 "
      "--schedule cosine --warmup 5 --steps 17 --clip 1.5 --accumulate 6 --reduce each "
      "--recompute budget --memory-budget 7MiB --seed 9 --batch 11 --threads 13 --shard-group 2"));
  // The bindings name all fields: a new one does not compile until it is looked at here.
  const auto& [zero, precision, optimizer, schedule, clip, micro_batches, reduce, order, recompute,
               budget, seed, samples, threads, poison, device, deterministic, memory, trace] =
      config;
  const auto& [stage, bucket, prefetch, overlap, reshard, group] = zero;
  CHECK(stage == 1);
  CHECK(bucket == 3072);
  CHECK(prefetch == 4);
  CHECK_FALSE(overlap);
  CHECK_FALSE(reshard);
  CHECK(group == 2);
  CHECK(precision.parameter == ashlar::DType::bf16);
  CHECK(precision.reduce == ashlar::DType::f32);
  const auto& [lr, beta1, beta2, epsilon, decay, ema] = std::get<ashlar::AdamW>(optimizer);
  CHECK(lr == 0.02);
  CHECK(beta1 == 0.7);
  CHECK(beta2 == 0.8);
  CHECK(epsilon == 1e-8);
  CHECK(decay == 0.3);
  CHECK(ema == 0);
  const auto& [kind, rate, warmup, steps, floor] = schedule;
  CHECK(kind == ashlar::Schedule::Kind::cosine);
  CHECK(rate == 0.02);
  CHECK(warmup == 5);
  CHECK(steps == 17);
  CHECK(floor == 0.1);
  CHECK(clip == 1.5);
  CHECK(micro_batches == 6);
  CHECK(reduce == ashlar::ReduceWhen::each);
  CHECK(order == ashlar::MicroBatchOrder::micro_batches);
  CHECK(recompute == ashlar::Recompute::budget);
  CHECK(budget == 7 << 20);
  CHECK(seed == 9);
  CHECK(samples == 11);
  CHECK(threads == 13);
  CHECK_FALSE(poison);
  CHECK(device == ashlar::Device{});  // the trainer's own: it depends on the rank
  CHECK(deterministic);
  CHECK(memory == &ashlar::host_memory());
  CHECK(trace == nullptr);
}

TEST_CASE("trainer: the choices of a flag reach the configuration") {
  using ashlar::Recompute;
  const auto config = [](const std::string& flags) {
    return train_config(parsed("--synthetic " + flags));
  };
  for (const auto& [word, recompute] :
       {std::pair{"none", Recompute::none}, std::pair{"cheap", Recompute::cheap},
        std::pair{"selective", Recompute::selective}, std::pair{"per-unit", Recompute::per_unit}})
    CHECK(config(std::string("--recompute ") + word).recompute == recompute);
  CHECK(config("--order layers").order == ashlar::MicroBatchOrder::layers);
  CHECK(config("--reduce last").reduce == ashlar::ReduceWhen::last);
  CHECK(config("--schedule constant").schedule.kind == ashlar::Schedule::Kind::constant);
  CHECK(config("--precision fp32 --reduce-dtype bf16").precision.parameter == ashlar::DType::f32);
  CHECK(config("--precision fp32 --reduce-dtype bf16").precision.reduce == ashlar::DType::bf16);
  CHECK(config("--overlap on").zero.overlap);
  CHECK(config("--reshard on").zero.reshard_after_forward);
}

TEST_CASE("trainer: the flags of the model reach its trace") {
  const Options options = parsed("--synthetic --seq 9 --precision bf16 --freeze wte h.*");
  const auto& [batch, sequence, dtype, dropout, frozen] = model_trace(options, 3, 0.25);
  CHECK(batch == 3);
  CHECK(sequence == 9);
  CHECK(dtype == ashlar::DType::bf16);
  CHECK(dropout == 0.25);
  CHECK(frozen == std::vector<std::string>{"wte", "h.*"});
}

TEST_CASE("trainer: weights that one rank cannot read are refused by all ranks alike") {
  const TemporaryFolder folder;
  const Options options = small_run(folder);
  const auto messages = told(3, [&](ashlar::Communicator& world) {
    ashlar::TrainStep train = make_step(world, options);
    train.load_parameters(
        [&](const ashlar::Parameter& parameter, std::int64_t, ashlar::TensorView values) {
          if (world.rank() == 1 && parameter.name == "h.0.mlp.c_fc.weight")
            throw ashlar::CorruptCheckpoint("a file of rank 1: tensor 'h.0.mlp.c_fc.weight'");
          std::ranges::fill(values.span<float>(), 0.5F);
        });
  });
  for (const std::string& message : messages)
    CHECK(message == "a file of rank 1: tensor 'h.0.mlp.c_fc.weight'");
}

TEST_CASE("trainer: a folder that one rank finds truncated is refused by all ranks alike") {
  const TemporaryFolder folder;
  const Options options = small_run(folder);
  const auto good = folder.path / "good", bad = folder.path / "bad";
  ashlar::launch_threads(3, [&](ashlar::Communicator& world) {
    ashlar::TrainStep train = make_step(world, options);
    ashlar::export_pretrained(world, good, train, ashlar::DType::f32, "{}");
    ashlar::load_pretrained(world, good, train);
  });
  std::filesystem::copy(good, bad);
  std::filesystem::resize_file(bad / "model.safetensors", 3000);
  const auto messages = told(3, [&](ashlar::Communicator& world) {
    ashlar::TrainStep train = make_step(world, options);
    ashlar::load_pretrained(world, world.rank() == 1 ? bad : good, train);
  });
  CHECK(contains(messages[0], (bad / "model.safetensors").string()));
  CHECK(contains(messages[0], "tensor '"));
  for (const std::string& message : messages) CHECK(message == messages[0]);
}

TEST_CASE("trainer: writing metrics costs no collective per step") {
  const TemporaryFolder folder;
  Options options = small_run(folder);
  options.steps = 8;
  options.metrics = folder.path / "m.jsonl";
  ashlar::launch_threads(2, [&](ashlar::Communicator& world) {
    Trainer(world, options, 2).run();
    int steps = 0, since = 0;  // collectives since the last step's numbers were exchanged
    for (const std::string& line : world.recent()) {
      if (contains(line, " collectively ")) ++since;
      if (!contains(line, " step metrics ")) continue;
      if (++steps > 1) CHECK(since == 0);
      since = 0;
    }
    CHECK(steps >= 2);
  });
}

TEST_CASE("trainer: metrics that cannot be written end the run on all ranks, saved or not") {
  const TemporaryFolder folder;
  Options options = small_run(folder);
  options.metrics = "/dev/full";
  for (const std::int64_t steps : {1, 2, 50}) {
    options.steps = steps;
    for (const std::string& message :
         told(3, [&](ashlar::Communicator& world) { Trainer(world, options, 3).run(); })) {
      CHECK(contains(message, "--metrics /dev/full: cannot be written: No space left"));
      CHECK(contains(message, "make room"));
    }
  }
}

TEST_CASE(
    "trainer: a checkpoint of other algorithms of libraries is noted on the same kind of GPU") {
  const ashlar::LibraryChoices now{"sm_90", "00000000000000ab"};
  const auto saved = [](const std::string& device, const std::string& hash) {
    return R"({"step": 3, "seed": 0, "libraries": {"device": ")" + device + R"(", "hash": ")" +
           hash + R"("}})";
  };
  CHECK(libraries_note(saved("sm_90", "00000000000000ab"), now).empty());
  CHECK(
      libraries_note(saved("sm_90", "00000000000000cd"), now) ==
      "was trained with other algorithms for products or attention on sm_90 (00000000000000cd, now "
      "00000000000000ab): what follows may differ in bits from the uninterrupted run");
  CHECK(libraries_note(saved("sm_100", "00000000000000cd"), now).empty());
  CHECK(libraries_note(saved("sm_90", "00000000000000cd"), {}).empty());
  CHECK(libraries_note(R"({"step": 3, "seed": 0})", now).empty());
  for (const char* strange :
       {R"({"libraries": 7})", R"({"libraries": {"device": 90, "hash": []}})"})
    CHECK(libraries_note(strange, now).empty());
}

TEST_CASE("trainer: a checkpoint of the CPU says nothing of libraries") {
  const TemporaryFolder folder;
  Options options = small_run(folder);
  options.steps = 1;
  options.save = folder.path / "saved";
  ashlar::launch_threads(1, [&](ashlar::Communicator& world) {
    CHECK(make_step(world, options).library_choices() == ashlar::LibraryChoices{});
    Trainer(world, options, 1).run();
  });
  CHECK(ashlar::inspect_checkpoint(options.save).counters == R"({"seed":1,"step":1})");
}
