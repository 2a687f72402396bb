// What somebody else's program does with the library: three ranks sum a number, an optimizer takes
// a step.
#include <array>
#include <atomic>
#include <cmath>
#include <cstdio>

#include "ashlar/communicator.hpp"
#include "ashlar/data.hpp"
#include "ashlar/optimizer.hpp"

int main() {
  std::atomic<int> right = 0;
  ashlar::launch_threads(3, [&](ashlar::Communicator& communicator) {
    float value = static_cast<float>(1 + communicator.rank());
    communicator.all_reduce({&value, ashlar::DType::f32, {1}}, "value").wait();
    if (value == 6) ++right;
  });

  std::array<float, 2> weight{1, 2}, gradient{1, -1}, m{}, v{};
  const auto view = [](std::array<float, 2>& values) {
    return ashlar::TensorView(values.data(), ashlar::DType::f32, {2});
  };
  const std::array<ashlar::TensorView, 2> state{view(m), view(v)};
  const std::array<ashlar::Segment, 1> segments{{{0, 2, false}}};
  ashlar::make_optimizer(ashlar::AdamW{})
      ->step(view(weight), {}, view(gradient), state, segments, {.learning_rate = 0.5});
  const bool stepped = std::abs(weight[0] - 0.5F) < 1e-5F && std::abs(weight[1] - 2.5F) < 1e-5F;

  const auto tokens = ashlar::synthetic_tokens(10, 7, 1);
  std::printf("%d ranks summed, optimizer %s, %lld tokens\n", right.load(),
              stepped ? "stepped" : "wrong", static_cast<long long>(tokens->size()));
  return right == 3 && stepped && tokens->size() == 10 ? 0 : 1;
}
