// What ranks do together: they fail as one, and a step has no collective for the sake of the file.
#include "train_gpt/trainer.hpp"

#include <doctest/doctest.h>

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
