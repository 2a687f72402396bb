// Training of a language model on random tokens, and what it took: the same work, the same figures
// and the same keys as train_gpt's.
#include <fmt/format.h>
#include <unistd.h>

#include <bit>
#include <chrono>
#include <cmath>
#include <fstream>
#include <map>
#include <mutex>
#include <optional>
#include <sstream>

#include "ashlar/interop/torch.hpp"
#include "train_gpt/gather.hpp"
#include "train_gpt/hardware.hpp"
#include "train_gpt/metrics.hpp"
#include "wrap_torch/networks.hpp"
#include "wrap_torch/options.hpp"

namespace wrapped {
namespace {

using ashlar::Category;
using ashlar::Communicator;
using Clock = std::chrono::steady_clock;
using Json = nlohmann::ordered_json;

Gpt make(const Options& options) {
  const std::map<std::string, GptSize> sizes{
      {"tiny", {4, 4, 128, 256}}, {"30m", {6, 8, 512, 16384}}, {"gpt2", {12, 12, 768, 50257}}};
  static std::mutex mutex;  // ranks that are threads share libtorch's random numbers
  const std::lock_guard lock(mutex);
  torch::manual_seed(options.seed);
  Gpt network(sizes.at(options.model), options.seq);
  if (options.precision == "bf16") network->to(torch::kBFloat16);
  return network;
}

/// Resident bytes of the shared memory that this process made.
std::int64_t own_window_bytes() {
  const std::string mine = fmt::format("ashlar-window-{}-", ::getpid());
  std::ifstream file("/proc/self/smaps");
  std::int64_t kilobytes = 0;
  bool inside = false;
  for (std::string line; std::getline(file, line);) {
    if (line.find('-') < line.find(' ')) inside = line.find(mine) != std::string::npos;
    std::istringstream words(line);
    std::string key;
    std::int64_t value = 0;
    if (inside && words >> key >> value && key == "Rss:") kilobytes += value;
  }
  return 1024 * kilobytes;
}

/// One step, as the slowest rank saw it.
struct Measured {
  double loss = 0;
  double total = 0, forward = 0, backward = 0, update = 0;  // seconds
};

Measured over_ranks(Communicator& world, const Measured& mine) {
  Measured all;
  for (const Measured& rank : train_gpt::gather(world, mine, "step metrics")) {
    all.loss += rank.loss / world.size();
    all.total = std::max(all.total, rank.total);
    all.forward = std::max(all.forward, rank.forward);
    all.backward = std::max(all.backward, rank.backward);
    all.update = std::max(all.update, rank.update);
  }
  return all;
}

class Run {
 public:
  Run(Communicator& world, const Options& options)
      : world_(world),
        options_(options),
        network_(make(options)),
        vocabulary_(network_->wte->weight.size(0)),
        generator_(at::detail::createCPUGenerator(options.seed +
                                                  static_cast<std::uint64_t>(world.rank()))),
        sharded_(ashlar::torch::shard(
            network_, world, ashlar::AdamW{options.lr, 0.9, 0.95, 1e-8, 0.1},
            {.stage = options.stage, .clip = options.clip, .threads = options.threads})) {
    ashlar::collectively(world_, [&] {
      if (world_.rank() == 0 && !options_.metrics.empty())
        metrics_.emplace(options_.metrics, std::nullopt);
    });
  }

  void step(std::int64_t number) {
    const auto data =
        torch::randint(vocabulary_, {options_.batch, options_.seq + 1}, generator_, torch::kLong);
    const ashlar::SentBytes before = sharded_.optimizer().sent_bytes();
    const auto start = Clock::now();
    const auto seconds = [](Clock::time_point from, Clock::time_point to) {
      return std::chrono::duration<double>(to - from).count();
    };
    const auto loss = network_->forward(data.slice(1, 0, options_.seq), data.slice(1, 1));
    const auto forward = Clock::now();
    loss.backward();
    const auto backward = Clock::now();
    const ashlar::UpdateResult update = sharded_.step();
    const auto end = Clock::now();
    const Measured measured =
        over_ranks(world_, {loss.item<double>(), seconds(start, end), seconds(start, forward),
                            seconds(forward, backward), seconds(backward, end)});
    if (!std::isfinite(measured.loss))
      throw ashlar::InvalidArgument(fmt::format(
          "step {}: the loss is {}; try a lower --lr or --clip 1", number, measured.loss));
    write(number, measured, update, before);
  }

  void finish(const train_gpt::ResidentMeter& resident) {
    const auto peaks = train_gpt::gather(
        world_, resident.peak_bytes(options_.ranks == 1 ? own_window_bytes() : 0, options_.ranks),
        "resident bytes");
    const std::int64_t peak = *std::max_element(peaks.begin(), peaks.end());
    if (world_.rank() != 0) return;
    const auto& optimizer = sharded_.optimizer();
    fmt::print("{}, resident {}\n", optimizer.summary(), ashlar::format_bytes(peak));
    if (!metrics_) return;
    const auto bytes = optimizer.state_bytes();
    const auto of = [&](Category category) { return bytes[static_cast<std::size_t>(category)]; };
    const Json summary{{"parameters", optimizer.layout().elements()},
                       {"ranks", world_.size()},
                       {"stage", options_.stage},
                       {"precision", options_.precision},
                       {"model_state_bytes",
                        {{"parameter", of(Category::parameter)},
                         {"gradient", of(Category::gradient)},
                         {"optimizer_state", of(Category::optimizer_state)}}},
                       {"transient_bytes", optimizer.transient_bytes()},
                       {"peak_resident_bytes", peak},
                       {"config", to_json(options_)},
                       {"hardware", train_gpt::to_json(train_gpt::detect_hardware())}};
    metrics_->write(Json{{"summary", summary}}.dump());
  }

 private:
  void write(std::int64_t number, const Measured& measured, const ashlar::UpdateResult& update,
             const ashlar::SentBytes& before) {
    if (world_.rank() != 0) return;
    const std::int64_t tokens = world_.size() * options_.batch * options_.seq;
    const double rate = static_cast<double>(tokens) / measured.total;
    fmt::print("step {}: loss {:.4f}, {:.0f} tokens/s\n", number, measured.loss, rate);
    if (!metrics_) return;
    const auto loss = static_cast<float>(measured.loss);
    Json sent = Json::object();
    const ashlar::SentBytes after = sharded_.optimizer().sent_bytes();
    for (std::size_t kind = 0; kind < after.size(); ++kind)
      sent[std::string(name_of(static_cast<ashlar::Traffic>(kind)))] = after[kind] - before[kind];
    const Json line{{"step", number},
                    {"loss", measured.loss},
                    {"loss_bits", fmt::format("{:08x}", std::bit_cast<std::uint32_t>(loss))},
                    {"grad_norm", update.grad_norm},
                    {"learning_rate", update.learning_rate},
                    {"tokens", tokens},
                    {"tokens_per_second", rate},
                    {"seconds",
                     {{"total", measured.total},
                      {"forward", measured.forward},
                      {"backward", measured.backward},
                      {"update", measured.update}}},
                    {"sent_bytes", sent}};
    metrics_->write(line.dump());
  }

  Communicator& world_;
  const Options& options_;
  Gpt network_;
  std::int64_t vocabulary_;
  at::Generator generator_;
  ashlar::torch::Sharded sharded_;
  std::optional<train_gpt::MetricsFile> metrics_;
};

}  // namespace

void train_language_model(Communicator& world, const Options& options) {
  const train_gpt::ResidentMeter resident;
  Run run(world, options);
  const std::int64_t steps = options.steps > 0 ? options.steps : 10;
  for (std::int64_t step = 1; step <= steps; ++step) run.step(step);
  run.finish(resident);
}

}  // namespace wrapped
