// How close a training step comes to its own matrix products. Between the steps, in the same run
// and with all ranks busy, every product of the step is timed alone with each backend and layout;
// gemm_fraction is the time of the best ones over the time of the step. Prints one JSON object.
//
//   perf_train_step --model gpt2 --batch 4 --seq 256 --ranks 2 --precision fp32
//   mpiexec -n 2 perf_train_step --model gpt2 --threads 1
#include "ashlar/train_step.hpp"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstring>
#include <limits>
#include <mutex>

#include "ashlar/buffer.hpp"
#include "ashlar/data.hpp"
#include "ashlar/nn/gpt.hpp"
#include "hardware.hpp"
#include "products.hpp"
#include "runtime/thread_pool.hpp"
#include "timing.hpp"

namespace {

using namespace ashlar;
using perf::Clock, perf::median, perf::seconds_since;

struct Options {
  std::string model = "gpt2", precision = "fp32";
  std::int64_t batch = 4, seq = 256, accumulate = 1;
  int stage = 3, ranks = 1, threads = 1, steps = 5, prefetch = 1;
};

/// A product of the step, how often it runs in a micro-batch, and the share of it that counts
/// (causal attention: half).
struct Product {
  Gemm gemm;
  double count = 1;
  double share = 1;
  double flops() const {
    return 2.0 * static_cast<double>(gemm.m) * static_cast<double>(gemm.n) *
           static_cast<double>(gemm.k) * count * share;
  }
};

/// Forward, gradient of the input, gradient of the weight of y (rows, out) = x (rows, in) W.
void add_linear(std::vector<Product>& products, DType dtype, std::int64_t rows, std::int64_t in,
                std::int64_t out, double count, bool weight_transposed) {
  const auto add = [&](Gemm gemm) {
    gemm.dtype = gemm.result = dtype;
    products.push_back({gemm, count});
  };
  add({.m = rows, .n = out, .k = in, .transpose_b = weight_transposed});
  add({.m = rows, .n = in, .k = out, .transpose_b = !weight_transposed});
  if (weight_transposed) {
    add({.m = out, .n = in, .k = rows, .transpose_a = true});
  } else {
    add({.m = in, .n = out, .k = rows, .transpose_a = true});
  }
}

std::vector<Product> products_of(const GptConfig& model, const Options& options) {
  const DType dtype = options.precision == "bf16" ? DType::bf16 : DType::f32;
  const std::int64_t rows = options.batch * options.seq, c = model.width;
  const auto layers = static_cast<double>(model.layers);
  std::vector<Product> products;
  add_linear(products, dtype, rows, c, 3 * c, layers, false);
  add_linear(products, dtype, rows, c, c, layers, false);
  add_linear(products, dtype, rows, c, model.inner, layers, false);
  add_linear(products, dtype, rows, model.inner, c, layers, false);
  add_linear(products, dtype, rows, c, model.vocabulary, 1, true);
  // Attention: scores and dP are (T, D) x (D, T); P V, dV, dQ and dK are (T, T) x (T, D).
  const std::int64_t t = options.seq, d = c / model.heads;
  const double heads = layers * static_cast<double>(options.batch * model.heads);
  Gemm scores{.m = t, .n = t, .k = d, .transpose_b = true};
  Gemm mixed{.m = t, .n = d, .k = t};
  scores.dtype = scores.result = mixed.dtype = mixed.result = dtype;
  products.push_back({scores, 2 * heads, 0.5});
  products.push_back({mixed, 4 * heads, 0.5});
  return products;
}

/// Times the products with every backend that has them.
class Products {
 public:
  Products(std::vector<Product> products, int threads)
      : products_(std::move(products)), pool_(threads) {
    std::int64_t a = 64, b = 64, c = 64, workspace = 64;
    for (const Product& product : products_) {
      const Gemm& g = product.gemm;
      a = std::max(a, g.m * g.k * size_of(g.dtype));
      b = std::max(b, g.k * g.n * size_of(g.dtype));
      c = std::max(c, g.m * g.n * size_of(g.result));
      auto& candidates = candidates_.emplace_back();
      for (const GemmRule& rule : perf::rules_for(g)) {
        candidates.push_back({std::make_unique<GemmPlan>(g, rule, threads), {}});
        workspace = std::max(workspace, candidates.back().plan->workspace_bytes());
      }
    }
    a_ = Buffer(host_memory(), a, Category::activation);
    b_ = Buffer(host_memory(), b, Category::activation);
    c_ = Buffer(host_memory(), c, Category::activation);
    workspace_ = Buffer(host_memory(), workspace, Category::workspace);
    for (const Buffer* buffer : {&a_, &b_, &c_, &workspace_})
      std::memset(buffer->data(), 0, static_cast<std::size_t>(buffer->bytes()));
  }

  /// Every candidate warm and on all ranks at once: at least three calls, small ones for 5 ms.
  void round(Communicator& world) {
    RunContext context;
    context.pool = &pool_;
    for (auto& candidates : candidates_) {
      for (Candidate& candidate : candidates) {
        const auto once = [&] {
          const auto start = Clock::now();
          candidate.plan->run(context, a_.data(), b_.data(), nullptr, c_.data(), workspace_.data());
          return seconds_since(start);
        };
        once();
        world.barrier();
        double spent = 0;
        for (int call = 0; call < 3 || spent < 5e-3; ++call) {
          candidate.seconds.push_back(once());
          spent += candidate.seconds.back();
        }
      }
    }
  }

  double flops() const {
    double sum = 0;
    for (const Product& product : products_) sum += product.flops();
    return sum;
  }

  /// Seconds of all products of a micro-batch, each at its best.
  double best_seconds() const {
    double sum = 0;
    for (std::size_t p = 0; p < products_.size(); ++p) {
      double best = std::numeric_limits<double>::infinity();
      for (const Candidate& candidate : candidates_[p])
        best = std::min(best, median(candidate.seconds));
      sum += best * products_[p].count * products_[p].share;
    }
    return sum;
  }

 private:
  struct Candidate {
    std::unique_ptr<GemmPlan> plan;
    std::vector<double> seconds;
  };
  std::vector<Product> products_;
  std::vector<std::vector<Candidate>> candidates_;
  ThreadPool pool_;
  Buffer a_, b_, c_, workspace_;
};

void measure(Communicator& world, const Options& options) {
  const GptConfig model = gpt_config(options.model);
  TrainConfig config;
  config.zero.stage = options.stage;
  config.zero.prefetch = options.prefetch;
  config.precision.parameter = config.precision.reduce =
      options.precision == "bf16" ? DType::bf16 : DType::f32;
  config.samples = options.batch;
  config.micro_batches = options.accumulate;
  config.threads = options.threads;
  const ModelTrace how{options.batch, options.seq, config.precision.parameter, 0, {}};
  TrainStep train(
      world, [&](Tracer& t) { return gpt_loss(t, model, how); }, config);
  Products products(products_of(model, options), options.threads);
  const auto tokens = synthetic_tokens(1 << 22, model.vocabulary, 1);

  std::vector<double> steps, exposed, update;
  for (int step = 0; step <= options.steps; ++step) {
    world.barrier();
    const auto start = Clock::now();
    const StepResult result = train.step([&](std::int64_t k, const Batch& batch) {
      const std::int64_t at = ((step * options.accumulate + k) * world.size() + world.rank()) *
                              options.batch * options.seq;
      copy_sequence(*tokens, at, batch.at("tokens").span<std::int32_t>(),
                    batch.at("targets").span<std::int32_t>());
    });
    world.barrier();
    if (step > 0) steps.push_back(seconds_since(start));  // the first one touches memory
    exposed.push_back(result.seconds_exposed);
    update.push_back(result.seconds_update);
    products.round(world);
  }
  if (world.rank() != 0) return;
  const double seconds = median(steps), k = static_cast<double>(options.accumulate);
  const double token_count = k * static_cast<double>(world.size() * options.batch * options.seq);
  nlohmann::ordered_json json{
      {"benchmark", "train_step"},
      {"model", model.name},
      {"precision", options.precision},
      {"ranks", world.size()},
      {"communicator", world.name()},
      {"threads", options.threads},
      {"stage", options.stage},
      {"batch", options.batch},
      {"seq", options.seq},
      {"accumulate", options.accumulate},
      {"seconds_per_step", seconds},
      {"tokens_per_second", token_count / seconds},
      {"flops_per_second", k * products.flops() * world.size() / seconds},
      {"products_flops_per_second", products.flops() * world.size() / products.best_seconds()},
      {"gemm_fraction", k * products.best_seconds() / seconds},
      {"seconds_communication_exposed", median(exposed)},
      {"seconds_update", median(update)},
      {"hardware", hardware()}};
  fmt::print("{}\n", json.dump());
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app("A training step beside its own matrix products, as JSON");
  app.add_option("--model", options.model);
  app.add_option("--precision", options.precision)->check(CLI::IsMember({"fp32", "bf16"}));
  app.add_option("--batch", options.batch);
  app.add_option("--seq", options.seq);
  app.add_option("--accumulate", options.accumulate);
  app.add_option("--stage", options.stage);
  app.add_option("--prefetch", options.prefetch);
  app.add_option("--ranks", options.ranks);
  app.add_option("--threads", options.threads);
  app.add_option("--steps", options.steps);
  CLI11_PARSE(app, argc, argv);
  if (options.ranks > 1) {
    launch_threads(options.ranks, [&](Communicator& ranks) { measure(ranks, options); });
  } else {
    measure(world(), options);
  }
  return 0;
}
