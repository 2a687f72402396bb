// Training of a classifier of images: a plain libtorch loop but for shard() and step().
#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <mutex>

#include "ashlar/interop/torch.hpp"
#include "fashion_mnist/dataset.hpp"
#include "train_gpt/gather.hpp"
#include "wrap_torch/networks.hpp"
#include "wrap_torch/options.hpp"

namespace wrapped {
namespace {

using ashlar::Communicator;
using vision::Split;

/// Ranks that are threads share libtorch's random numbers.
std::shared_ptr<ClassifierImpl> make(const Options& options) {
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  torch::manual_seed(options.seed);
  std::shared_ptr<ClassifierImpl> network;
  if (options.model == "cnn")
    network = std::make_shared<ConvolutionalImpl>();
  else
    network = std::make_shared<PatchTransformerImpl>();
  if (options.precision == "bf16") network->to(torch::kBFloat16);
  return network;
}

struct Samples {
  torch::Tensor images, labels;  // (B, 1, 28, 28), (B)
};

/// Sample i of the batch is number `at(i)` of the split.
template <typename At>
Samples load(const Split& split, std::int64_t count, const Options& options, const At& at) {
  Samples samples{torch::empty({count, 1, vision::kSide, vision::kSide}),
                  torch::empty({count}, torch::kLong)};
  for (std::int64_t i = 0; i < count; ++i) {
    split.image(at(i), samples.images[i].data_ptr<float>());
    samples.labels[i] = split.label(at(i));
  }
  if (options.precision == "bf16") samples.images = samples.images.to(torch::kBFloat16);
  return samples;
}

/// Every rank takes its share of each run of images, and passes as often as the others.
double accuracy(ClassifierImpl& network, const Split& split, Communicator& world,
                const Options& options) {
  const torch::NoGradGuard no_grad;
  network.eval();
  constexpr std::int64_t kMost = 250;
  std::int64_t right = 0;
  for (std::int64_t first = 0; first < split.size(); first += kMost * world.size()) {
    const std::int64_t begin = first + kMost * world.rank();
    const std::int64_t count = std::clamp<std::int64_t>(split.size() - begin, 0, kMost);
    const Samples samples = load(split, std::max<std::int64_t>(count, 1), options,
                                 [&](std::int64_t i) { return count == 0 ? 0 : begin + i; });
    const auto hits = network.forward(samples.images).argmax(1).eq(samples.labels);
    if (count > 0) right += hits.sum().item<std::int64_t>();
  }
  network.train();
  std::int64_t all = 0;
  for (const std::int64_t share : train_gpt::gather(world, right, "accuracy")) all += share;
  return 100 * static_cast<double>(all) / static_cast<double>(split.size());
}

}  // namespace

double train_classifier(Communicator& world, const Options& options) {
  std::unique_ptr<vision::FashionMnist> data;
  ashlar::collectively(world, [&] { data = std::make_unique<vision::FashionMnist>(options.data); });
  const auto network = make(options);
  auto sharded = ashlar::torch::shard(network, world, ashlar::AdamW{.lr = options.lr},
                                      {.stage = options.stage, .clip = options.clip});
  const std::int64_t global = options.batch * world.size();
  const std::int64_t steps =
      options.steps > 0 ? options.steps : options.epochs * (data->train.size() / global);
  double mean = 0;
  for (std::int64_t step = 0; step < steps; ++step) {
    const Samples samples = load(data->train, options.batch, options, [&](std::int64_t i) {
      return vision::shuffled(step * global + world.rank() * options.batch + i, data->train.size(),
                              options.seed);
    });
    const auto logits = network->forward(samples.images).to(torch::kFloat);
    const auto loss = torch::nn::functional::cross_entropy(logits, samples.labels);
    loss.backward();
    sharded.step();
    mean +=
        (loss.item<double>() - mean) / static_cast<double>(std::min<std::int64_t>(step + 1, 50));
  }
  const double share = accuracy(*network, data->test, world, options);
  if (world.rank() == 0)
    fmt::print("{} steps, loss {:.4f}, test accuracy {:.1f} %\n{}\n", steps, mean, share,
               sharded.optimizer().summary());
  return share;
}

}  // namespace wrapped
