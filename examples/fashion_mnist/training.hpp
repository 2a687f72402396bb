// Training of a classifier on Fashion-MNIST through TrainStep, and its accuracy.
#pragma once

#include <cstdint>
#include <functional>

#include "ashlar/train_step.hpp"
#include "fashion_mnist/dataset.hpp"
#include "fashion_mnist/models.hpp"

namespace vision {

struct Recipe {
  Classifier classifier = mlp;
  std::int64_t epochs = 5;
  std::int64_t batch = 64;    // samples per step, of all ranks together
  ashlar::TrainConfig train;  // samples, schedule and seed are filled in from this recipe
  double lr = 1e-3;           // falls to a hundredth of it along a cosine
  std::uint64_t seed = 1;
};

/// A model in training, on one rank. Every rank makes one and calls it alike.
class Training {
 public:
  /// @throws InvalidArgument when the batch is no multiple of the ranks.
  Training(ashlar::Communicator& ranks, const FashionMnist& data, const Recipe& recipe);

  std::int64_t steps() const { return steps_per_epoch_ * recipe_.epochs; }
  std::int64_t steps_per_epoch() const { return steps_per_epoch_; }
  ashlar::TrainStep& train() { return train_; }

  /// The next step's samples of this rank. @return the mean loss over all ranks.
  float step();
  /// Share of all test images that the model names, [0, 1].
  double accuracy();

 private:
  ashlar::Communicator& ranks_;
  const FashionMnist& data_;
  Recipe recipe_;
  std::int64_t steps_per_epoch_;
  std::int64_t samples_;  // per rank
  ashlar::TrainStep train_;
};

}  // namespace vision
