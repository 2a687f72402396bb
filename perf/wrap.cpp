// A training step of a network in plain arrays (examples/wrap_raw.cpp's, and a wide one), sharded
// by ShardedOptimizer, beside the same step by hand: one MPI_Allreduce of all gradients, then the
// same AdamW on every rank. Steps alternate; the median of each counts. Run as
// `mpiexec -n 2 perf_wrap`.
#include <mpi.h>

#include <CLI/CLI.hpp>
#include <cmath>
#include <functional>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>

#include "ashlar/ashlar.hpp"
#include "hardware.hpp"
#include "mpi_timing.hpp"

namespace {

using namespace ashlar;

struct Sizes {
  std::int64_t inputs, hidden, classes, batch;
  std::int64_t parameters() const { return hidden * (inputs + 1) + classes * (hidden + 1); }
};

/// Two layers; all parameters, and all gradients, one after the other in one array.
class Network {
 public:
  explicit Network(const Sizes& sizes) : s_(sizes) {
    const auto n = static_cast<std::size_t>(s_.parameters());
    values_.resize(n);
    gradients_.resize(n);
    for (std::size_t i = 0; i < n; ++i)
      values_[i] = 0.05F * std::sin(static_cast<float>(i % 10007));
    for (std::int64_t i = 0; i < s_.batch * s_.inputs; ++i)
      x_.push_back(std::cos(static_cast<float>(i % 7919)));
  }

  std::vector<float>& values() { return values_; }
  std::vector<float>& gradients() { return gradients_; }
  ParameterList list() {
    ParameterList list;
    std::int64_t at = 0;
    const auto add = [&](const char* name, const Shape& shape) {
      list.add(name, values_.data() + at, gradients_.data() + at, shape, DType::f32);
      at += shape.elements();
    };
    add("w1", {s_.hidden, s_.inputs});
    add("b1", {s_.hidden});
    add("w2", {s_.classes, s_.hidden});
    add("b2", {s_.classes});
    return list;
  }

  void forward_backward() {
    std::ranges::fill(gradients_, 0.0F);
    for (std::int64_t b = 0; b < s_.batch; ++b) sample(x_.data() + b * s_.inputs, b % s_.classes);
  }

 private:
  void sample(const float* x, std::int64_t label) {
    const auto index = [](std::int64_t i) { return static_cast<std::size_t>(i); };
    const float *w1 = values_.data(), *b1 = w1 + s_.hidden * s_.inputs, *w2 = b1 + s_.hidden,
                *b2 = w2 + s_.classes * s_.hidden;
    float *dw1 = gradients_.data(), *db1 = dw1 + s_.hidden * s_.inputs, *dw2 = db1 + s_.hidden,
          *db2 = dw2 + s_.classes * s_.hidden;
    std::vector<float> h(index(s_.hidden)), dh(index(s_.hidden)), y(index(s_.classes));
    for (std::int64_t j = 0; j < s_.hidden; ++j) {
      float sum = b1[j];
      for (std::int64_t i = 0; i < s_.inputs; ++i) sum += w1[j * s_.inputs + i] * x[i];
      h[index(j)] = std::max(sum, 0.0F);
    }
    float total = 0;
    for (std::int64_t c = 0; c < s_.classes; ++c) {
      float sum = b2[c];
      for (std::int64_t j = 0; j < s_.hidden; ++j) sum += w2[c * s_.hidden + j] * h[index(j)];
      total += y[index(c)] = std::exp(sum);
    }
    const float share = 1.0F / static_cast<float>(s_.batch);
    for (std::int64_t c = 0; c < s_.classes; ++c) {
      const float dy = (y[index(c)] / total - (c == label ? 1.0F : 0.0F)) * share;
      db2[c] += dy;
      for (std::int64_t j = 0; j < s_.hidden; ++j) {
        dw2[c * s_.hidden + j] += dy * h[index(j)];
        dh[index(j)] += dy * w2[c * s_.hidden + j];
      }
    }
    for (std::int64_t j = 0; j < s_.hidden; ++j) {
      if (h[index(j)] <= 0) continue;
      db1[j] += dh[index(j)];
      for (std::int64_t i = 0; i < s_.inputs; ++i) dw1[j * s_.inputs + i] += dh[index(j)] * x[i];
    }
  }

  Sizes s_;
  std::vector<float> values_, gradients_, x_;
};

/// What one writes without Ashlar.
class ByHand {
 public:
  explicit ByHand(const Sizes& sizes)
      : network_(sizes), m_(network_.values().size()), v_(network_.values().size()) {}
  void step() {
    network_.forward_backward();
    std::vector<float>& g = network_.gradients();
    MPI_Allreduce(MPI_IN_PLACE, g.data(), static_cast<int>(g.size()), MPI_FLOAT, MPI_SUM,
                  MPI_COMM_WORLD);
    const auto n = static_cast<std::int64_t>(g.size());
    const auto view = [n](std::vector<float>& x) { return TensorView(x.data(), DType::f32, {n}); };
    const std::array<TensorView, 2> state{view(m_), view(v_)};
    const Segment all{0, n, true};
    rule_->step(view(network_.values()), {}, view(g), state, {&all, 1},
                {3e-4, ++steps_, 1.0 / world().size()});
  }

 private:
  Network network_;
  std::vector<float> m_, v_;
  std::unique_ptr<Optimizer> rule_ = make_optimizer(AdamW{});
  std::int64_t steps_ = 0;
};

class Wrapped {
 public:
  Wrapped(const Sizes& sizes, int stage)
      : network_(sizes), optimizer_(network_.list(), world(), AdamW{}, {.stage = stage}) {}
  void step() {
    network_.forward_backward();
    optimizer_.step();
  }

 private:
  Network network_;
  ShardedOptimizer optimizer_;
};

nlohmann::json compare(const Sizes& sizes, int rounds) {
  ByHand by_hand(sizes);
  Wrapped stage_1(sizes, 1), stage_2(sizes, 2);
  std::map<std::string, std::vector<double>> seconds;
  for (int round = -2; round < rounds; ++round) {  // two to warm up
    const double hand = perf::time_of([&] { by_hand.step(); });
    const double one = perf::time_of([&] { stage_1.step(); });
    const double two = perf::time_of([&] { stage_2.step(); });
    if (round < 0) continue;
    seconds["by_hand"].push_back(hand);
    seconds["stage_1"].push_back(one);
    seconds["stage_2"].push_back(two);
  }
  nlohmann::json result{{"parameters", sizes.parameters()}, {"batch_per_rank", sizes.batch}};
  for (const auto& [way, samples] : seconds) result["seconds"][way] = perf::median(samples);
  for (const char* stage : {"stage_1", "stage_2"}) {
    result["ratio"][stage] = perf::median(seconds[stage]) / perf::median(seconds["by_hand"]);
  }
  return result;
}

}  // namespace

int main(int argc, char** argv) {
  int rounds = 31;
  CLI::App app("A wrapped step beside the same step by hand");
  app.add_option("--rounds", rounds)->check(CLI::PositiveNumber);
  CLI11_PARSE(app, argc, argv);
  ::setenv("UCX_RNDV_THRESH", "auto", 0);  // MPI's own at its fastest, not at its most forgiving
  Communicator& group = world();
  if (group.name() != "mpi") {
    std::cerr << "perf_wrap compares with MPI: start it with mpiexec -n 2\n";
    return 2;
  }
  const nlohmann::json small = compare({64, 512, 8, 32}, rounds);
  const nlohmann::json large = compare({1024, 11000, 128, 4}, rounds);
  if (group.rank() == 0) {
    std::cout << nlohmann::json{{"ranks", group.size()},
                                {"rounds", rounds},
                                {"raw_example", small},
                                {"wide", large},
                                {"hardware", hardware()}}
                     .dump(1)
              << std::endl;
  }
  return 0;
}
