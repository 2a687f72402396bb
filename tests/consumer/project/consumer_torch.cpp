// Somebody's libtorch module, sharded over two ranks.
#include <atomic>
#include <cstdio>

#include "ashlar/interop/torch.hpp"

int main() {
  std::atomic<int> falling = 0;
  ashlar::launch_threads(2, [&](ashlar::Communicator& world) {
    torch::nn::Linear network(4, 1);
    torch::nn::init::ones_(network->weight);
    auto sharded = ashlar::torch::shard(network, world, ashlar::AdamW{.lr = 1e-1}, {.stage = 3});
    const torch::Tensor x = torch::ones({8, 4}), y = torch::zeros({8, 1});
    double first = 0, last = 0;
    for (int step = 0; step < 20; ++step) {
      const torch::Tensor loss = torch::mse_loss(network->forward(x), y);
      last = loss.item<double>();
      if (step == 0) first = last;
      loss.backward();
      sharded.step();
    }
    if (last < first / 2) ++falling;
  });
  std::printf("%d ranks learnt\n", falling.load());
  return falling == 2 ? 0 : 1;
}
