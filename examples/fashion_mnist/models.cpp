#include "fashion_mnist/models.hpp"

#include <cmath>

#include "fashion_mnist/dataset.hpp"

namespace vision {

using namespace ashlar;  // model code

Value weight(Tracer& t, const char* name, const Shape& shape, std::int64_t fan_in) {
  const double deviation = std::sqrt(2 / static_cast<double>(fan_in));
  return t.parameter(
      {.name = name, .shape = shape, .initializer = {Initializer::Kind::normal, deviation}});
}

Value bias(Tracer& t, const char* name, std::int64_t size) {
  return t.parameter({.name = name, .shape = {size}, .decay = false});
}

Value mlp(Tracer& t, Value images) {
  const auto unit = t.unit("mlp");
  Value x = reshape(images, {images.shape()[0], kSide * kSide});
  x = linear_gelu(x, weight(t, "up", {784, 256}, 784), bias(t, "up.bias", 256));
  x = linear_gelu(x, weight(t, "middle", {256, 128}, 256), bias(t, "middle.bias", 128));
  return linear(x, weight(t, "down", {128, kClasses}, 128), bias(t, "down.bias", kClasses));
}

Value cnn(Tracer& t, Value images) {
  Value x;
  {
    const auto unit = t.unit("convolutions");
    x = conv2d(images, weight(t, "conv1", {5, 5, 1, 16}, 25), bias(t, "conv1.bias", 16),
               {.padding = 2});
    x = gelu(max_pool2d(x, 2));  // (N, 14, 14, 16)
    x = conv2d(x, weight(t, "conv2", {3, 3, 16, 32}, 144), bias(t, "conv2.bias", 32),
               {.padding = 1});
    x = gelu(max_pool2d(x, 2));  // (N, 7, 7, 32)
  }
  const auto unit = t.unit("head");
  x = reshape(x, {images.shape()[0], 7 * 7 * 32});
  x = linear_gelu(x, weight(t, "up", {1568, 128}, 1568), bias(t, "up.bias", 128));
  return linear(x, weight(t, "down", {128, kClasses}, 128), bias(t, "down.bias", kClasses));
}

Value classifier_loss(Tracer& t, Classifier classifier, std::int64_t samples) {
  const Value images = t.input("images", DType::f32, {samples, kSide, kSide, 1});
  const Value labels = t.input("labels", DType::i32, {samples});
  return cross_entropy(classifier(t, images), labels);
}

void classifier_logits(Tracer& t, Classifier classifier, std::int64_t samples) {
  const Value images = t.input("images", DType::f32, {samples, kSide, kSide, 1});
  t.output("logits", classifier(t, images));
}

}  // namespace vision
