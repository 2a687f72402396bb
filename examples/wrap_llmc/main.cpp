// Trains a GPT-2: all parameters lie in one buffer, all gradients in another.
#include <ashlar/ashlar.hpp>
#include <chrono>
#include <cstdio>

#include "gpt2.hpp"

int main(int argc, char** argv) {
  const Config config = read_arguments(argc, argv);
  GPT2 model = gpt2_create(config);
  float *params = model.params_memory.get(), *grads = model.grads_memory.get();
  ashlar::Communicator& world = ashlar::world();  // MPI's ranks under mpiexec, else one
  ashlar::ParameterList list;
  for (int layer = -1; layer <= config.layers; ++layer)  // the order of forward
    for (const Part& part : gpt2_parts(model, layer))
      list.add(part.name, params + part.offset, grads + part.offset, {part.count},
               ashlar::DType::f32, {.unit = std::to_string(layer)});
  ashlar::ShardedOptimizer optimizer(list, world, ashlar::AdamW{.lr = 1e-3},
                                     {.stage = 2, .bucket_bytes = 1 << 20});
  for (int step = 1; step <= config.steps; ++step) {
    const auto begin = std::chrono::steady_clock::now();
    const Batch batch(config, step, world.rank() * config.batch);
    float loss = gpt2_forward(model, batch.inputs.data(), batch.targets.data());
    gpt2_zero_grad(model);
    gpt2_backward(model, [&](int layer) {
      for (const Part& part : gpt2_parts(model, layer)) optimizer.grad_ready(part.name);
    });
    optimizer.step();
    world.all_reduce({&loss, ashlar::DType::f32, {1}}, "loss").wait();
    loss /= static_cast<float>(world.size());
    const std::chrono::duration<double, std::milli> time = std::chrono::steady_clock::now() - begin;
    if (world.rank() > 0) continue;
    std::printf("step %d: train loss %.7f (took %.1f ms)\n", step, loss, time.count());
  }
  if (world.rank() == 0) std::printf("%s\n", optimizer.summary().c_str());
  return 0;
}
