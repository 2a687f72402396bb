// The backward pass of examples/wrap_llmc against differences of its forward pass.
#include <doctest/doctest.h>

#include <cmath>

#include "wrap_llmc/gpt2.hpp"

TEST_CASE("wrap_llmc: along its own gradient, each part of the model changes the loss as it says") {
  const Config config{.layers = 2, .heads = 2, .channels = 32, .vocabulary = 32, .seq = 8};
  GPT2 model = gpt2_create(config);
  for (Index i = 0; i < model.num_parameters; ++i)  // no part of the model without an influence
    model.params_memory[i] += 0.2F * std::sin(static_cast<float>(i));
  const Batch batch(config, 1, 0);
  const auto loss = [&] {
    return double{gpt2_forward(model, batch.inputs.data(), batch.targets.data())};
  };
  loss();
  std::vector<int> order;
  gpt2_backward(model, [&](int layer) { order.push_back(layer); });
  CHECK(order == std::vector<int>{2, 1, 0, -1});
  Index parameters = 0;
  for (int layer : order) {
    for (const Part& part : gpt2_parts(model, layer)) {
      CAPTURE(part.name);
      parameters += part.count;
      float* values = model.params_memory.get() + part.offset;
      const float* gradients = model.grads_memory.get() + part.offset;
      double square = 0;
      for (Index i = 0; i < part.count; ++i) square += gradients[i] * gradients[i];
      const double norm = std::sqrt(square);
      const auto move = [&](double distance) {
        for (Index i = 0; i < part.count; ++i)
          values[i] += static_cast<float>(distance * gradients[i] / norm);
      };
      const double step = 0.004;
      move(step);
      const double above = loss();
      move(-2 * step);
      const double below = loss();
      move(step);
      CHECK(norm > 1e-3);
      CHECK((above - below) / (2 * step) == doctest::Approx(norm).epsilon(0.01));
    }
  }
  CHECK(parameters == model.num_parameters);
}
