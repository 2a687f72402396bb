// A small U-Net (Ronneberger et al., arXiv:1505.04597), channels last: each level convolves twice
// and halves the image; on the way up pixels are repeated and meet what the same level kept.
#pragma once

#include <cmath>
#include <string>

#include "ashlar/graph.hpp"
#include "ashlar/ops.hpp"

namespace ashlar {

struct UnetTrace {
  std::int64_t batch = 8, size = 128;  // images (batch, size, size, 3)
  std::int64_t channels = 32;          // of the first level; doubled at each
  int levels = 4;
};

/// conv2d of kernel x kernel pixels that keeps the image's size.
inline Value unet_conv(Tracer& t, Value x, const std::string& name, std::int64_t kernel,
                       std::int64_t channels, bool shifted = true) {
  const Shape shape{kernel, kernel, x.shape()[3], channels};
  const double deviation = std::sqrt(2 / static_cast<double>(shape.elements() / channels));
  const Value weight = t.parameter(
      {.name = name, .shape = shape, .initializer = {Initializer::Kind::normal, deviation}});
  const Value bias =
      shifted ? t.parameter({.name = name + ".bias", .shape = {channels}, .decay = false})
              : Value();
  return conv2d(x, weight, bias, {.padding = kernel / 2});
}

/// Each pixel four times.
inline Value twice_as_large(Value x) {
  const Shape s = x.shape();
  const Value repeated =
      broadcast_to(reshape(x, {s[0], s[1], 1, s[2], 1, s[3]}), {s[0], s[1], 2, s[2], 2, s[3]});
  return reshape(repeated, {s[0], 2 * s[1], 2 * s[2], s[3]});
}

/// Mean squared error of a U-Net on "images", to give back "clean", both f32 (batch, size, size,
/// 3).
inline Value unet_loss(Tracer& t, const UnetTrace& how) {
  const Shape shape{how.batch, how.size, how.size, 3};
  Value x = t.input("images", DType::f32, shape);
  std::vector<Value> skipped;
  for (int level = 0; level < how.levels; ++level) {
    const std::string name = "down." + std::to_string(level);
    const auto unit = t.unit(name);
    const std::int64_t channels = how.channels << level;
    if (level > 0) x = max_pool2d(x, 2);
    x = gelu(unet_conv(t, x, name + ".conv1", 3, channels));
    x = gelu(unet_conv(t, x, name + ".conv2", 3, channels));
    skipped.push_back(x);
  }
  for (int level = how.levels - 2; level >= 0; --level) {
    const std::string name = "up." + std::to_string(level);
    const auto unit = t.unit(name);
    const std::int64_t channels = how.channels << level;
    // A convolution of two images side by side is the sum of theirs.
    x = add(
        unet_conv(t, twice_as_large(x), name + ".conv1", 3, channels),
        unet_conv(t, skipped[static_cast<std::size_t>(level)], name + ".skip", 3, channels, false));
    x = gelu(unet_conv(t, gelu(x), name + ".conv2", 3, channels));
  }
  const auto unit = t.unit("head");
  const Value error = subtract(unet_conv(t, x, "head", 1, 3), t.input("clean", DType::f32, shape));
  return mean(multiply(error, error));
}

}  // namespace ashlar
