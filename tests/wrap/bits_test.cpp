// The sharded optimizer: whatever is sharded, wherever memory lies and however gradients are
// reported, the bits are the same, and they are what the rule says.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "wrap/toy_model.hpp"

namespace ashlar::test {
namespace {

struct Setting {
  Memory memory = Memory::callers;
  int stage = 0;
  std::int64_t bucket_bytes = 1;
  bool overlap = true;
  bool reports = true;
  int order = 0;  // 0: backward, 1: forward, 2: another on each rank
  int prefetch = 1;
};

struct Outcome {
  std::vector<std::uint32_t> bits;
  std::vector<double> norms;
  bool operator==(const Outcome&) const = default;
};

std::vector<std::size_t> order_of(int kind, int rank) {
  std::vector<std::size_t> order(toy_parameters().size());
  std::iota(order.begin(), order.end(), 0);
  if (kind == 0) std::ranges::reverse(order);
  if (kind == 2) {
    std::mt19937 random(static_cast<unsigned>(rank) + 5);
    std::ranges::shuffle(order, random);
  }
  return order;
}

constexpr int kSteps = 4;

Outcome train(int ranks, DType dtype, const Setting& setting, int micro_batches = 1) {
  Outcome outcome;
  launch_threads(ranks, [&](Communicator& world) {
    ToyModel model(world, setting.memory, dtype, AdamW{.lr = 0.05, .ema = 0.9},
                   {.stage = setting.stage,
                    .bucket_bytes = setting.bucket_bytes,
                    .prefetch = setting.prefetch,
                    .overlap = setting.overlap,
                    .clip = 2});
    model.reports = setting.reports;
    std::vector<double> norms;
    for (int step = 0; step < kSteps; ++step) {
      model.zero_grad();
      const auto micro_batch = [&](int k) {
        const std::string unused = step == 1 && world.rank() == 0 ? "middle" : "";
        model.backward((step * micro_batches + k) * ranks + world.rank(),
                       order_of(setting.order, world.rank()), unused);
      };
      for (int k = 0; k + 1 < micro_batches; ++k) {
        const auto guard = model.optimizer().no_sync();
        micro_batch(k);
      }
      micro_batch(micro_batches - 1);
      norms.push_back(model.optimizer().step().grad_norm);
    }
    std::vector<float> all = model.parameters();
    const std::vector<float> averages = model.parameters(true);
    all.insert(all.end(), averages.begin(), averages.end());
    if (world.rank() == 0) outcome = {bits_of(all), norms};
  });
  return outcome;
}

std::vector<Setting> settings() {
  std::vector<Setting> all;
  for (int stage = 0; stage <= 3; ++stage) {
    for (const Memory memory : {Memory::callers, Memory::gradients_elsewhere, Memory::optimizers}) {
      if (stage == 3 && memory != Memory::optimizers) continue;
      all.push_back({memory, stage});
      all.push_back({memory, stage, 1 << 20, true, true, 1, 0});
      all.push_back({memory, stage, 600, false, true, 2, 2});
      if (memory != Memory::gradients_elsewhere)
        all.push_back({memory, stage, 600, true, false, 0, 3});
    }
  }
  return all;
}

/// AdamW (arXiv:1711.05101, algorithm 2) on one parameter, in double.
class Reference {
 public:
  explicit Reference(int ranks) : ranks_(ranks) {
    for (std::size_t p = 0; p < toy_parameters().size(); ++p) {
      for (std::int64_t i = 0; i < toy_parameters()[p].elements; ++i)
        values_.push_back({p, i, static_cast<double>(first_value(p, i))});
    }
  }
  double step(int t) {
    std::vector<double> gradients;
    double squares = 0;
    for (const Element& e : values_) {
      double sum = 0;
      for (int rank = 0; rank < ranks_; ++rank) {
        const ToyParameter& parameter = toy_parameters()[e.parameter];
        const bool unused = t == 1 && rank == 0 && parameter.name == "middle";
        if (parameter.trainable && !unused) sum += gradient(e, t * ranks_ + rank);
      }
      gradients.push_back(sum / ranks_);
      squares += gradients.back() * gradients.back();
    }
    const double norm = std::sqrt(squares), factor = norm > 2 ? 2 / norm : 1;
    m_.resize(values_.size());
    v_.resize(values_.size());
    for (std::size_t j = 0; j < values_.size(); ++j) {
      if (!toy_parameters()[values_[j].parameter].trainable) continue;
      update(j, gradients[j] * factor, t + 1);
    }
    return norm;
  }
  double value(std::size_t j) const { return values_[j].value; }
  std::size_t size() const { return values_.size(); }

 private:
  struct Element {
    std::size_t parameter;
    std::int64_t i;
    double value;
  };

  static double gradient(const Element& e, std::int64_t sample) {
    return (e.value - 0.125 * static_cast<double>(e.i % 5)) *
           (1 + 0.25 * static_cast<double>((sample * 31 + e.i) % 7));
  }
  void update(std::size_t j, double g, int t) {
    m_[j] = 0.9 * m_[j] + 0.1 * g;
    v_[j] = 0.999 * v_[j] + 0.001 * g * g;
    double& p = values_[j].value;
    if (toy_parameters()[values_[j].parameter].decay) p -= 0.05 * 0.01 * p;
    p -= 0.05 * (m_[j] / (1 - std::pow(0.9, t))) /
         (std::sqrt(v_[j] / (1 - std::pow(0.999, t))) + 1e-8);
  }

  int ranks_;
  std::vector<Element> values_;
  std::vector<double> m_, v_;
};

}  // namespace

TEST_CASE("sharded optimizer: equal bits whatever is sharded, however it is reported") {
  for (int ranks = 1; ranks <= 4; ++ranks) {
    for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
      const Outcome first = train(ranks, dtype, {});
      for (const Setting& s : settings()) {
        CAPTURE(ranks);
        CAPTURE(name_of(dtype));
        CAPTURE(s.stage);
        CAPTURE(static_cast<int>(s.memory));
        CAPTURE(s.bucket_bytes);
        CAPTURE(s.overlap);
        CAPTURE(s.reports);
        CAPTURE(s.order);
        const Outcome other = train(ranks, dtype, s);
        CHECK(other.norms == first.norms);
        CHECK(other.bits == first.bits);
      }
    }
  }
}

TEST_CASE("sharded optimizer: micro-batches under no_sync give equal bits at every stage") {
  for (const int ranks : {1, 3}) {
    const Outcome first = train(ranks, DType::f32, {}, 3);
    for (const Setting& s : settings()) {
      CAPTURE(s.stage);
      CAPTURE(static_cast<int>(s.memory));
      CHECK(train(ranks, DType::f32, s, 3) == first);
    }
  }
}

TEST_CASE("sharded optimizer: the update is AdamW's on the mean gradient, clipped") {
  for (const int ranks : {1, 2, 3}) {
    const Outcome outcome = train(ranks, DType::f32, {Memory::optimizers, 3});
    Reference reference(ranks);
    for (int t = 0; t < kSteps; ++t)
      CHECK(outcome.norms[static_cast<std::size_t>(t)] ==
            doctest::Approx(reference.step(t)).epsilon(1e-6));
    for (std::size_t j = 0; j < reference.size(); ++j) {
      const double got = std::bit_cast<float>(outcome.bits[j]);
      CHECK(std::abs(got - reference.value(j)) < 2e-5);
    }
  }
}

}  // namespace ashlar::test
