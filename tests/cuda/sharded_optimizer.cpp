// The sharded optimizer with parameters, gradients and states on a GPU, which two ranks share.
#include "ashlar/sharded_optimizer.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <deque>
#include <string>
#include <vector>

#include "ashlar/buffer.hpp"
#include "ashlar/device_communicator.hpp"
#include "ashlar/device_memory.hpp"

namespace ashlar {
namespace {

const Device kGpu{DeviceType::cuda, 0};
constexpr int kSteps = 3;

struct Toy {
  std::string name, unit;
  std::int64_t elements;
};
const std::vector<Toy> kToys{
    {"table", "first", 5000}, {"shift", "first", 7}, {"head", "last", 130}};

float value_of(std::int64_t i) { return 0.5F - 0.03125F * static_cast<float>(i * 7 % 32); }
std::vector<float> gradient_of(const Toy& toy, int sample) {
  std::vector<float> gradient(static_cast<std::size_t>(toy.elements));
  for (std::int64_t i = 0; i < toy.elements; ++i)
    gradient[static_cast<std::size_t>(i)] =
        0.01F * static_cast<float>((i * 13 + sample * 5) % 23 - 9);
  return gradient;
}

struct Outcome {
  std::vector<float> parameters;
  std::vector<double> norms;
};

/// On the host where the stream is the inline one.
Outcome train(Communicator& world, int stage, MemoryResource& memory, StreamRef stream) {
  const bool owned = stage == 3;
  std::deque<std::vector<float>> sources;  // until the stream has passed
  const auto upload = [&](const TensorView& to, std::vector<float> values) {
    const std::vector<float>& source = sources.emplace_back(std::move(values));
    copy_async(to.data, source.data(), to.bytes(), stream);
  };
  std::vector<Buffer> buffers;
  std::vector<TensorView> gradients;
  ParameterList list;
  for (const Toy& toy : kToys) {
    const Shape shape{toy.elements};
    if (owned) {
      list.allocate(toy.name, shape, DType::f32, {.unit = toy.unit});
      continue;
    }
    const auto take = [&] {
      return buffers.emplace_back(memory, 4 * toy.elements, Category::parameter, stream)
          .view(DType::f32, shape);
    };
    const TensorView values = take();
    gradients.push_back(take());
    std::vector<float> first;
    for (std::int64_t i = 0; i < toy.elements; ++i) first.push_back(value_of(i));
    upload(values, first);
    list.add(toy.name, values, gradients.back(), {.unit = toy.unit});
  }
  ShardedOptions options{.stage = stage, .clip = 0.5};
  options.memory = &memory;
  options.stream = stream;
  options.source = [](const Parameter&, std::int64_t begin, TensorView values) {
    for (std::int64_t i = 0; i < values.elements(); ++i)
      values.as<float>()[i] = value_of(begin + i);
  };
  ShardedOptimizer optimizer(list, world, AdamW{.lr = 0.05}, options);
  Outcome outcome;
  for (int step = 0; step < kSteps; ++step) {
    for (std::size_t p = kToys.size(); p-- > 0;) {
      const auto lease = optimizer.gather(kToys[p].unit);
      upload(owned ? optimizer.gradient(kToys[p].name) : gradients[p],
             gradient_of(kToys[p], step * world.size() + world.rank()));
      optimizer.grad_ready(kToys[p].name);
    }
    outcome.norms.push_back(optimizer.step().grad_norm);
  }
  for (const Toy& toy : kToys) {
    std::vector<float> values(static_cast<std::size_t>(toy.elements));
    optimizer.read(toy.name, {values.data(), DType::f32, {toy.elements}}, {.everywhere = true});
    outcome.parameters.insert(outcome.parameters.end(), values.begin(), values.end());
  }
  stream.synchronize();
  return outcome;
}

Outcome on_gpu(int ranks, int stage) {
  Outcome outcome;
  launch_threads(ranks, [&](Communicator& threads) {
    const auto pages = device_pages(kGpu);
    CachingResource memory(*pages);
    const Stream stream(kGpu);
    const auto world = staged_communicator(threads, kGpu);
    const Outcome mine = train(*world, stage, memory, stream);
    CHECK(memory.statistics().live_bytes == 0);
    memory.retire(stream);
    if (threads.rank() == 0) outcome = mine;
  });
  return outcome;
}

Outcome on_host(int ranks, int stage) {
  Outcome outcome;
  launch_threads(ranks, [&](Communicator& world) {
    const Outcome mine = train(world, stage, host_memory(), {});
    if (world.rank() == 0) outcome = mine;
  });
  return outcome;
}

}  // namespace

TEST_CASE("cuda sharded optimizer: the same bits at all stages, and the host's values") {
  for (const int ranks : {1, 2}) {
    CAPTURE(ranks);
    const Outcome host = on_host(ranks, 1), first = on_gpu(ranks, 0);
    REQUIRE(first.parameters.size() == host.parameters.size());
    for (std::size_t i = 0; i < host.parameters.size(); ++i)
      REQUIRE(std::abs(first.parameters[i] - host.parameters[i]) <=
              1e-6 * std::abs(host.parameters[i]) + 1e-7);
    CHECK(first.norms == host.norms);
    for (const int stage : {1, 2, 3}) {
      CAPTURE(stage);
      const Outcome sharded = on_gpu(ranks, stage);
      CHECK(sharded.parameters == first.parameters);
      CHECK(sharded.norms == first.norms);
    }
  }
}

}  // namespace ashlar
