// A training step of examples/wrap_llmc, sharded by ShardedOptimizer, beside the same step data-
// parallel by hand: one MPI_Allreduce of the gradient buffer, then gpt2_update on every rank. Steps
// alternate; of each the median and the fastest count. `--only` runs one of them, for its resident
// bytes (Linux). Run as `mpiexec -n 2 perf_wrap_llmc`.
#include <mpi.h>

#include <CLI/CLI.hpp>
#include <fstream>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>

#include "ashlar/ashlar.hpp"
#include "hardware.hpp"
#include "mpi_timing.hpp"
#include "wrap_llmc/gpt2.hpp"

namespace {

namespace perf = ashlar::perf;
using ashlar::world;
using Seconds = std::map<std::string, std::vector<double>>;

class Way {
 public:
  explicit Way(const Config& config) : model_(gpt2_create(config)) {}
  virtual ~Way() = default;
  /// Adds the seconds of the step, and of parts of it, to `seconds`.
  virtual void step(Seconds& seconds) = 0;
  virtual std::int64_t state_bytes() const = 0;
  std::int64_t parameters() const { return model_.num_parameters; }

 protected:
  void backward(const Batch& batch, const std::function<void(int)>& done) {
    gpt2_forward(model_, batch.inputs.data(), batch.targets.data());
    gpt2_zero_grad(model_);
    gpt2_backward(model_, done);
  }
  Batch next_batch() { return {model_.config, ++steps_, world().rank() * model_.config.batch}; }
  GPT2 model_;
  int steps_ = 0;
};

class ByHand final : public Way {
 public:
  using Way::Way;
  void step(Seconds& seconds) override {
    const Batch batch = next_batch();
    float* gradients = model_.grads_memory.get();
    const auto part = [&seconds](const char* name, const auto& body) {
      const auto begin = perf::Clock::now();
      body();
      seconds[name].push_back(perf::seconds_since(begin));
    };
    seconds["by_hand"].push_back(perf::time_of([&] {
      part("by_hand: passes", [&] { backward(batch, [](int) {}); });
      part("by_hand: all-reduce", [&] {
        MPI_Allreduce(MPI_IN_PLACE, gradients, static_cast<int>(model_.num_parameters), MPI_FLOAT,
                      MPI_SUM, MPI_COMM_WORLD);
      });
      part("by_hand: update", [&] {
        gpt2_update(model_, m_, v_, 1e-3F, 0.9F, 0.999F, 1e-8F, 0.01F,
                    1.0F / static_cast<float>(world().size()), steps_);
      });
    }));
  }
  std::int64_t state_bytes() const override { return 4 * 4 * model_.num_parameters; }

 private:
  std::vector<float> m_, v_;
};

class Sharded final : public Way {
 public:
  Sharded(const Config& config, const std::string& name, int stage, bool overlap,
          std::int64_t bucket_bytes)
      : Way(config),
        name_(name),
        overlap_(overlap),
        optimizer_(list(), world(), ashlar::AdamW{.lr = 1e-3},
                   {.stage = stage, .bucket_bytes = bucket_bytes, .overlap = overlap}) {}
  void step(Seconds& seconds) override {
    const Batch batch = next_batch();
    seconds[name_].push_back(perf::time_of([&] {
      backward(batch, [&](int layer) {
        if (!overlap_) return;
        for (const Part& part : gpt2_parts(model_, layer)) optimizer_.grad_ready(part.name);
      });
      optimizer_.step();
    }));
  }
  std::int64_t state_bytes() const override {
    std::int64_t sum = 0;
    for (const std::int64_t bytes : optimizer_.state_bytes()) sum += bytes;
    return sum;
  }

 private:
  ashlar::ParameterList list() {
    ashlar::ParameterList list;
    float *params = model_.params_memory.get(), *grads = model_.grads_memory.get();
    for (int layer = -1; layer <= model_.config.layers; ++layer)
      for (const Part& part : gpt2_parts(model_, layer))
        list.add(part.name, params + part.offset, grads + part.offset, {part.count},
                 ashlar::DType::f32, {.unit = std::to_string(layer)});
    return list;
  }
  std::string name_;
  bool overlap_;
  ashlar::ShardedOptimizer optimizer_;
};

std::unique_ptr<Way> make_way(const std::string& name, const Config& config,
                              std::int64_t bucket_bytes) {
  if (name == "by_hand") return std::make_unique<ByHand>(config);
  return std::make_unique<Sharded>(config, name, name == "stage_2" ? 2 : 1,
                                   name != "stage_1_no_overlap", bucket_bytes);
}

/// A line of /proc/self/smaps_rollup, the largest of all ranks. Collective. "Pss" divides pages
/// among those who map them.
std::int64_t resident_bytes(const std::string& key) {
  std::ifstream file("/proc/self/smaps_rollup");
  std::int64_t bytes = 0;
  for (std::string word; file >> word;)
    if (word == key + ":" && file >> bytes) break;
  bytes *= 1024;
  MPI_Allreduce(MPI_IN_PLACE, &bytes, 1, MPI_INT64_T, MPI_MAX, MPI_COMM_WORLD);
  return bytes;
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> names{"by_hand", "stage_1", "stage_2", "stage_1_no_overlap"};
  Config config{
      .layers = 6, .heads = 8, .channels = 512, .vocabulary = 16384, .seq = 64, .batch = 1};
  int rounds = 31;
  std::int64_t bucket_mib = 1;
  std::string only;
  CLI::App app("A step of a program like llm.c's, wrapped, beside the same by hand");
  app.add_option("--rounds", rounds)->check(CLI::PositiveNumber);
  app.add_option("--batch", config.batch, "sequences of 64 tokens per rank")
      ->check(CLI::PositiveNumber);
  app.add_option("--bucket-mib", bucket_mib)->check(CLI::Range(1, 1024));
  app.add_option("--only", only)->check(CLI::IsMember(names));
  CLI11_PARSE(app, argc, argv);
  ::setenv("UCX_RNDV_THRESH", "auto", 0);  // MPI's own at its fastest, not at its most forgiving
  if (world().name() != "mpi") {
    std::cerr << "perf_wrap_llmc compares with MPI: start it with mpiexec -n 2\n";
    return 2;
  }
  std::map<std::string, std::unique_ptr<Way>> ways;
  for (const std::string& name : names)
    if (only.empty() || name == only) ways[name] = make_way(name, config, bucket_mib << 20);
  Seconds seconds, ignored;
  for (int round = -2; round < rounds; ++round)  // two to warm up
    for (const auto& [name, way] : ways) way->step(round < 0 ? ignored : seconds);

  nlohmann::json result{{"ranks", world().size()},
                        {"rounds", rounds},
                        {"bucket_mib", bucket_mib},
                        {"parameters", ways.begin()->second->parameters()},
                        {"tokens_per_rank", config.batch * config.seq},
                        {"hardware", hardware()}};
  for (const auto& [name, samples] : seconds) {
    result["seconds"][name] = {{"median", perf::median(samples)},
                               {"fastest", *std::ranges::min_element(samples)}};
  }
  for (const auto& [name, way] : ways) result["state_bytes_per_rank"][name] = way->state_bytes();
  if (ways.size() == 1)
    result["resident_bytes_per_rank"] = {{"all", resident_bytes("Pss")},
                                         {"private", resident_bytes("Private_Dirty")}};
  if (world().rank() == 0) std::cout << result.dump(1) << std::endl;
  return 0;
}
