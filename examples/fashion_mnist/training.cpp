#include "fashion_mnist/training.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "ashlar/error.hpp"

namespace vision {
namespace {

using ashlar::InvalidArgument;

std::int64_t samples_per_rank(const Recipe& recipe, ashlar::Communicator& ranks) {
  ashlar::collectively(ranks, [&] {
    if (recipe.batch % ranks.size() != 0)
      throw InvalidArgument(
          fmt::format("a batch of {} does not divide among {} ranks", recipe.batch, ranks.size()));
  });
  return recipe.batch / ranks.size();
}

ashlar::TrainConfig train_config(const Recipe& recipe, std::int64_t samples, std::int64_t steps) {
  ashlar::TrainConfig config = recipe.train;
  config.schedule = {.kind = ashlar::Schedule::Kind::cosine,
                     .lr = recipe.lr,
                     .warmup = std::min<std::int64_t>(100, steps / 10),
                     .steps = steps,
                     .floor = 0.01};
  config.seed = recipe.seed;
  config.samples = samples;
  return config;
}

}  // namespace

Training::Training(ashlar::Communicator& ranks, const FashionMnist& data, const Recipe& recipe)
    : ranks_(ranks),
      data_(data),
      recipe_(recipe),
      steps_per_epoch_(std::max<std::int64_t>(1, data.train.size() / recipe.batch)),
      samples_(samples_per_rank(recipe, ranks)),
      train_(ranks,
             [this](ashlar::Tracer& t) { return classifier_loss(t, recipe_.classifier, samples_); },
             train_config(recipe, samples_, steps()),
             {[this](ashlar::Tracer& t) { classifier_logits(t, recipe_.classifier, samples_); }}) {}

float Training::step() {
  const std::int64_t first = train_.steps() * recipe_.batch + ranks_.rank() * samples_;
  const auto load = [&](std::int64_t, const ashlar::Batch& batch) {
    for (std::int64_t s = 0; s < samples_; ++s) {
      const std::int64_t i = shuffled(first + s, data_.train.size(), recipe_.seed);
      data_.train.image(i, batch.at("images").as<float>() + s * kSide * kSide);
      batch.at("labels").as<std::int32_t>()[s] = data_.train.label(i);
    }
  };
  return train_.step(std::ref(load)).loss;
}

double Training::accuracy() {
  const Split& test = data_.test;
  double correct = 0;
  for (std::int64_t all = 0; all < test.size(); all += recipe_.batch) {
    const std::int64_t first = all + ranks_.rank() * samples_;
    const std::int64_t count = std::clamp<std::int64_t>(test.size() - first, 0, samples_);
    const auto load = [&](std::int64_t, const ashlar::Batch& batch) {
      for (std::int64_t s = 0; s < count; ++s)
        test.image(first + s, batch.at("images").as<float>() + s * kSide * kSide);
    };
    const ashlar::TensorView logits = train_.forward(0, std::ref(load)).at("logits");
    correct += static_cast<double>(count_correct(logits, test, first, count));
  }
  ranks_.all_reduce({&correct, ashlar::DType::f64, {1}}, "correct").wait();
  return correct / static_cast<double>(test.size());
}

}  // namespace vision
