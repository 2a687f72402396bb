// Trains a GPT-2: all parameters lie in one buffer, all gradients in another.
#include <chrono>
#include <cstdio>

#include "gpt2.hpp"

int main(int argc, char** argv) {
  const Config config = read_arguments(argc, argv);
  GPT2 model = gpt2_create(config);
  std::vector<float> m, v;
  for (int step = 1; step <= config.steps; ++step) {
    const auto begin = std::chrono::steady_clock::now();
    const Batch batch(config, step, 0);
    float loss = gpt2_forward(model, batch.inputs.data(), batch.targets.data());
    gpt2_zero_grad(model);
    gpt2_backward(model);
    gpt2_update(model, m, v, 1e-3F, 0.9F, 0.999F, 1e-8F, 0.01F, 1, step);
    const std::chrono::duration<double, std::milli> time = std::chrono::steady_clock::now() - begin;
    std::printf("step %d: train loss %.7f (took %.1f ms)\n", step, loss, time.count());
  }
  return 0;
}
