// The traffic formulas against the ledger of real steps.
#include <doctest/doctest.h>

#include "train_gpt/trainer.hpp"

using namespace train_gpt;

namespace {

struct Model {
  bool tied;
  std::vector<std::string> freeze;
};

/// What a step sends beyond the flats: the sums of squares, by gathers of one double per flat.
std::int64_t scalars(const ashlar::FlatLayout& layout) {
  return static_cast<std::int64_t>(layout.flats().size() * sizeof(double)) * (layout.ranks() - 1);
}

void check(const Model& how, Options options) {
  const ashlar::GptConfig model{.layers = 3,
                                .heads = 2,
                                .width = 24,
                                .positions = 16,
                                .vocabulary = 65,
                                .inner = 50,
                                .tied = how.tied};
  options.freeze = how.freeze;
  options.batch = 1;
  options.seq = 8;
  options.threads = 1;
  options.clip = 1;
  ashlar::launch_threads(options.ranks, [&](ashlar::Communicator& world) {
    ashlar::TrainStep train(
        world, [&](ashlar::Tracer& t) { return gpt_loss(t, model, model_trace(options, 1, 0)); },
        train_config(options));
    const ashlar::SentBytes before = train.sent_bytes();
    train.step([](std::int64_t, const ashlar::Batch& batch) {
      for (const auto& [name, view] : batch) std::ranges::fill(view.span<std::int32_t>(), 7);
    });
    const ashlar::SentBytes after = train.sent_bytes();
    if (world.rank() != 0) return;
    CAPTURE(how.tied);
    CAPTURE(how.freeze.size());
    CAPTURE(agreement_entries(options));
    const TrafficFormula formula =
        traffic_formula(zero_case(options, options.ranks, model.tied, train.layout()));
    const auto sent = [&](ashlar::Traffic kind) {
      const auto k = static_cast<std::size_t>(kind);
      return after[k] - before[k];
    };
    const std::int64_t more = sent(ashlar::Traffic::all_gather) - formula.all_gather;
    CHECK(more >= 0);
    CHECK(more <= scalars(train.layout()));
    CHECK(sent(ashlar::Traffic::reduce_scatter) == formula.reduce_scatter);
    // Parts of a sum are multiples of 64 numbers, and there is the loss.
    const auto flats = static_cast<std::int64_t>(train.layout().flats().size());
    CHECK(std::abs(sent(ashlar::Traffic::all_reduce) - formula.all_reduce) <= flats * 512 + 64);
  });
}

}  // namespace

TEST_CASE("traffic: the formulas are what steps send, tied and untied heads, every stage") {
  const std::vector<Model> models{{true, {}},
                                  {false, {}},
                                  {true, {"ln"}},
                                  {false, {"wte", "wpe", "h.0."}},
                                  {true, {"wte", "wpe", "h.0.", "h.1."}}};
  for (const Model& model : models)
    for (const int ranks : {1, 2, 3})
      for (const int stage : {0, 1, 2, 3})
        for (const std::int64_t accumulate : {1, 2})
          for (const bool reshard : {true, false}) {
            if (!reshard && stage < 3) continue;
            Options options;
            options.ranks = ranks;
            options.stage = stage;
            options.accumulate = accumulate;
            options.reshard = reshard;
            options.reduce = stage >= 2 ? "each" : "last";
            check(model, options);
            options.reduce = "last";
            options.precision = "bf16";
            options.reduce_dtype = accumulate == 1 ? "bf16" : "fp32";
            check(model, options);
            options.order = "layers";
            options.recompute = "per-unit";
            check(model, options);
          }
}

TEST_CASE("traffic: the formulas are what steps send in sharding groups, every stage") {
  for (const auto& [ranks, group] : {std::pair{4, 2}, std::pair{4, 1}, std::pair{6, 3}})
    for (const int stage : {0, 1, 2, 3})
      for (const std::int64_t accumulate : {1, 2})
        for (const char* reduce : {"each", "last"}) {
          Options options;
          options.ranks = ranks;
          options.shard_group = group;
          options.stage = stage;
          options.accumulate = accumulate;
          options.reduce = reduce;
          options.precision = options.reduce_dtype = stage % 2 == 0 ? "bf16" : "fp32";
          check({true, {}}, options);
        }
}
