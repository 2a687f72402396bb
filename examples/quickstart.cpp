// The README's example: a two-layer perceptron learns a sine, sharded over as many ranks as it is
// started with.
//   build/release/examples/quickstart        mpiexec -n 3 build/release/examples/quickstart
#include <ashlar/ashlar.hpp>
#include <cmath>
#include <cstdio>

ashlar::Value sine_loss(ashlar::Tracer& t) {  // model code; shapes are this rank's
  using namespace ashlar;
  const auto weight = [&](const char* name, const Shape& shape) {
    return t.parameter(
        {.name = name, .shape = shape, .initializer = {Initializer::Kind::normal, 0.5}});
  };
  const Value x = t.input("x", DType::f32, {64, 1}), y = t.input("y", DType::f32, {64, 1});
  const auto unit = t.unit("mlp");  // what is gathered together
  const Value hidden = linear_gelu(x, weight("up", {1, 128}), weight("shift", {128}));
  const Value error = subtract(linear(hidden, weight("down", {128, 1}), {}), y);
  return mean(multiply(error, error));
}

void sine_batch(int first, const ashlar::Batch& batch) {
  for (int i = 0; i < 64; ++i) {
    const float x = static_cast<float>((first + i) * 89 % 613) / 100 - 3;
    batch.at("x").as<float>()[i] = x;
    batch.at("y").as<float>()[i] = std::sin(x);
  }
}

int main() {
  ashlar::Communicator& world = ashlar::world();  // MPI's ranks under mpiexec, else one
  ashlar::TrainStep train(world, sine_loss,
                          {.zero = {.stage = 3}, .schedule = {.lr = 1e-2}, .samples = 64});
  float loss = 0;
  int batches = world.rank();  // every rank reads its own
  const auto load = [&](std::int64_t, const ashlar::Batch& batch) {
    sine_batch(batches * 64, batch);
    batches += world.size();
  };
  for (int step = 0; step < 500; ++step) loss = train.step(load).loss;
  if (world.rank() == 0) std::printf("mean squared error %.5f\n", static_cast<double>(loss));
  return loss < 0.01F ? 0 : 1;
}
