#include "tiny_256kb/tiny.hpp"

namespace tiny {
namespace {

vision::Recipe within(vision::Recipe recipe, ashlar::MemoryResource& arena) {
  recipe.classifier = network;
  recipe.train.zero.stage = 0;
  recipe.train.threads = 1;
  recipe.train.memory = &arena;
  recipe.train.recompute = ashlar::Recompute::budget;
  recipe.train.memory_budget = kArenaBytes;
  return recipe;
}

}  // namespace

using namespace ashlar;  // model code

Value network(Tracer& t, Value images) {
  const auto unit = t.unit("network");
  const auto layer = [&](Value x, const char* name, const char* shift, const Shape& shape,
                         Conv2dOptions options) {
    const std::int64_t fan_in = shape[0] * shape[1] * shape[2];
    return conv2d(x, vision::weight(t, name, shape, fan_in), vision::bias(t, shift, shape[3]),
                  options);
  };
  Value x = layer(images, "conv1", "bias1", {5, 5, 1, 8}, {.stride = 2, .padding = 2});
  x = layer(gelu(x), "conv2", "bias2", {3, 3, 8, 24}, {.padding = 1});
  x = gelu(max_pool2d(x, 2));  // (N, 7, 7, 24)
  x = layer(x, "conv3", "bias3", {3, 3, 24, 24}, {.padding = 1});
  x = gelu(max_pool2d(x, 2));  // (N, 3, 3, 24)
  x = layer(x, "conv4", "bias4", {3, 3, 24, vision::kClasses}, {});
  return reshape(x, {images.shape()[0], vision::kClasses});
}

vision::Recipe recipe() { return {.epochs = 3, .batch = 3, .train = {}, .lr = 1.5e-3}; }

Tiny::Tiny(std::span<std::byte> arena, const vision::FashionMnist& data, vision::Recipe recipe)
    : block_(arena),
      arena_(block_, std::ssize(arena), Category::activation),
      self_(self_communicator()),
      rank_(*self_, arena_),
      training_(rank_, data, within(std::move(recipe), arena_)) {}

}  // namespace tiny
