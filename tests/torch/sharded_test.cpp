// libtorch modules, sharded: the same losses as libtorch's own AdamW, the same bits at every stage.
#include <cmath>
#include <mutex>

#include "ashlar/interop/torch.hpp"

#undef CHECK  // glog's, which libtorch includes
#include <doctest/doctest.h>

namespace {

using ashlar::Communicator;

constexpr std::int64_t kVocabulary = 50, kWidth = 32, kBatch = 8, kTokens = 6;
constexpr int kBlocks = 8, kSteps = 20;

/// An embedding that is also the head, blocks in a list, norms, and a buffer.
struct NetworkImpl : torch::nn::Module {
  NetworkImpl() {
    embedding = register_module("embedding", torch::nn::Embedding(kVocabulary, kWidth));
    blocks = register_module("blocks", torch::nn::ModuleList());
    for (int i = 0; i < kBlocks; ++i) {
      blocks->push_back(
          torch::nn::Sequential(torch::nn::LayerNorm(torch::nn::LayerNormOptions({kWidth})),
                                torch::nn::Linear(kWidth, 4 * kWidth), torch::nn::GELU(),
                                torch::nn::Linear(4 * kWidth, kWidth)));
    }
    scale = register_buffer("scale", torch::ones({1}));
  }
  torch::Tensor forward(const torch::Tensor& tokens) {
    torch::Tensor x = embedding(tokens);
    for (const auto& block : *blocks) x = x + block->as<torch::nn::Sequential>()->forward(x);
    return torch::matmul(x, embedding->weight.t()) * scale;
  }
  torch::nn::Embedding embedding{nullptr};
  torch::nn::ModuleList blocks{nullptr};
  torch::Tensor scale;
};
TORCH_MODULE(Network);

/// Ranks that are threads share libtorch's random numbers.
Network make(torch::Dtype dtype = torch::kFloat) {
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  torch::manual_seed(7);
  Network network;
  network->to(dtype);
  return network;
}

/// The loss of rows [first, last) of a step's batch.
torch::Tensor loss_of(Network& network, int step, std::int64_t first, std::int64_t last) {
  const auto generator = at::detail::createCPUGenerator(static_cast<std::uint64_t>(step));
  const auto tokens = torch::randint(kVocabulary, {kBatch, kTokens + 1}, generator, torch::kLong)
                          .slice(0, first, last);
  const auto logits = network(tokens.slice(1, 0, kTokens));
  return torch::nn::functional::cross_entropy(logits.reshape({-1, kVocabulary}).to(torch::kFloat),
                                              tokens.slice(1, 1).reshape(-1));
}

std::vector<double> plain_losses() {
  Network network = make();
  torch::optim::AdamW optimizer(network->parameters(), torch::optim::AdamWOptions(1e-2));
  std::vector<double> losses;
  for (int step = 0; step < kSteps; ++step) {
    optimizer.zero_grad();
    const auto loss = loss_of(network, step, 0, kBatch);
    loss.backward();
    optimizer.step();
    losses.push_back(loss.item<double>());
  }
  return losses;
}

/// The mean over ranks of each step's loss.
std::vector<double> sharded_losses(int ranks, int stage, torch::Dtype dtype = torch::kFloat) {
  std::vector<double> losses(kSteps);
  std::mutex mutex;
  ashlar::launch_threads(ranks, [&](Communicator& world) {
    Network network = make(dtype);
    auto sharded =
        ashlar::torch::shard(network, world, ashlar::AdamW{.lr = 1e-2}, {.stage = stage});
    const std::int64_t share = kBatch / ranks;
    for (int step = 0; step < kSteps; ++step) {
      const auto loss = loss_of(network, step, world.rank() * share, (world.rank() + 1) * share);
      loss.backward();
      sharded.step();
      const std::lock_guard lock(mutex);
      losses[static_cast<std::size_t>(step)] += loss.item<double>() / ranks;
    }
  });
  return losses;
}

void check_close(const std::vector<double>& a, const std::vector<double>& b, double relative) {
  REQUIRE(a.size() == b.size());
  for (std::size_t i = 0; i < a.size(); ++i)
    CHECK(std::abs(a[i] - b[i]) <= relative * std::abs(b[i]));
}

}  // namespace

TEST_CASE("torch: the losses of torch::optim::AdamW, on one rank and on two with half the batch") {
  torch::set_num_threads(1);
  const std::vector<double> plain = plain_losses();
  CHECK(plain.back() < plain.front() - 0.1);
  for (int stage = 0; stage <= 3; ++stage) {
    CAPTURE(stage);
    check_close(sharded_losses(1, stage), plain, 1e-5);
    check_close(sharded_losses(2, stage), plain, 1e-5);
  }
}

TEST_CASE("torch: equal bits at every stage, in fp32 and bf16") {
  torch::set_num_threads(1);
  for (const torch::Dtype dtype : {torch::kFloat, torch::kBFloat16}) {
    const std::vector<double> first = sharded_losses(2, 0, dtype);
    for (int stage = 1; stage <= 3; ++stage) CHECK(sharded_losses(2, stage, dtype) == first);
  }
}

TEST_CASE("torch: at stage 3 a rank holds its share, and units while they are used") {
  torch::set_num_threads(1);
  ashlar::launch_threads(2, [&](Communicator& world) {
    Network network = make();
    auto sharded =
        ashlar::torch::shard(network, world, ashlar::AdamW{}, {.stage = 3, .bucket_bytes = 1});
    const auto& parameter = network->embedding->weight;
    CHECK(parameter.storage().data() == nullptr);
    for (int step = 0; step < 2; ++step) {
      loss_of(network, step, 0, 2).backward();
      CHECK_FALSE(parameter.grad().defined());
      sharded.step();
    }
    CHECK(parameter.storage().data() == nullptr);
    const auto bytes = sharded.optimizer().state_bytes();
    const auto& layout = sharded.optimizer().layout();
    CHECK(bytes[static_cast<std::size_t>(ashlar::Category::parameter)] == 4 * layout.padded() / 2);
    CHECK(layout.units().size() == kBlocks + 1);  // and the embedding
    CHECK(sharded.optimizer().transient_bytes() < 4 * layout.padded());
  });
}

TEST_CASE("torch: no_sync accumulates, ZeroAdamW takes parameters alone") {
  torch::set_num_threads(1);
  ashlar::launch_threads(2, [&](Communicator& world) {
    Network a = make(), b = make();
    auto sharded = ashlar::torch::shard(a, world, ashlar::AdamW{.lr = 1e-2}, {.stage = 2});
    ashlar::torch::ZeroAdamW zero(b->parameters(), world, ashlar::AdamW{.lr = 1e-2});
    for (int step = 0; step < 3; ++step) {
      const auto half = [&](int k) {
        const std::int64_t first = 4 * world.rank() + 2 * k;
        return loss_of(a, step, first, first + 2);
      };
      {
        const auto guard = sharded.no_sync();
        half(0).backward();
      }
      half(1).backward();
      sharded.step();
      loss_of(b, step, 4 * world.rank(), 4 * world.rank() + 4).backward();
      zero.step();
      zero.zero_grad();
    }
    CHECK(torch::allclose(a->embedding->weight, b->embedding->weight, 1e-5, 1e-6));
  });
}

TEST_CASE("torch: ZeroAdamW reads gradients at the step and leaves them, as torch's does") {
  torch::set_num_threads(1);
  const auto backward = [](Network& network, int step, int first, int last) {
    loss_of(network, step, first, last).backward();
    loss_of(network, step + 1, first, last).backward();  // adds
    for (const torch::Tensor& p : network->parameters()) p.mutable_grad().mul_(0.25);
  };
  Network plain = make();
  torch::optim::AdamW optimizer(plain->parameters(), torch::optim::AdamWOptions(1e-2));
  for (int step = 0; step < 4; ++step) {
    backward(plain, step, 0, kBatch);
    torch::nn::utils::clip_grad_norm_(plain->parameters(), 0.05);
    optimizer.step();
    optimizer.zero_grad();
  }
  ashlar::launch_threads(2, [&](Communicator& world) {
    Network network = make();
    ashlar::torch::ZeroAdamW zero(network->parameters(), world, ashlar::AdamW{.lr = 1e-2}, 0.05);
    for (int step = 0; step < 4; ++step) {
      backward(network, step, 4 * world.rank(), 4 * world.rank() + 4);
      const torch::Tensor before = network->embedding->weight.grad().clone();
      zero.step();
      CHECK(torch::equal(network->embedding->weight.grad(), before));
      zero.zero_grad();
      CHECK(!network->embedding->weight.grad().defined());
    }
    CHECK(torch::allclose(plain->embedding->weight, network->embedding->weight, 1e-5, 1e-6));
  });
}

TEST_CASE("torch: weight decay on some parameters, as with parameter groups") {
  torch::set_num_threads(1);
  const auto is_matrix = [](const std::string& /*name*/, const torch::Tensor& parameter) {
    return parameter.dim() > 1;
  };
  Network plain = make();
  std::vector<torch::Tensor> matrices, others;
  for (const auto& p : plain->parameters()) (p.dim() > 1 ? matrices : others).push_back(p);
  const auto group = [](const std::vector<torch::Tensor>& parameters, double decay) {
    return torch::optim::OptimizerParamGroup(
        parameters, std::make_unique<torch::optim::AdamWOptions>(
                        torch::optim::AdamWOptions(1e-2).weight_decay(decay)));
  };
  torch::optim::AdamW optimizer({group(matrices, 0.5), group(others, 0)});
  for (int step = 0; step < 5; ++step) {
    optimizer.zero_grad();
    loss_of(plain, step, 0, kBatch).backward();
    optimizer.step();
  }
  ashlar::launch_threads(2, [&](Communicator& world) {
    Network network = make();
    auto sharded = ashlar::torch::shard(
        network, world, ashlar::AdamW{.lr = 1e-2, .weight_decay = 0.5}, {.stage = 2}, is_matrix);
    for (int step = 0; step < 5; ++step) {
      loss_of(network, step, 4 * world.rank(), 4 * world.rank() + 4).backward();
      sharded.step();
    }
    const auto expected = plain->parameters(), got = network->parameters();
    for (std::size_t i = 0; i < got.size(); ++i)
      CHECK(torch::allclose(got[i], expected[i], 1e-4, 1e-5));
  });
}
