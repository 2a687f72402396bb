// A model small enough to follow, in units, with a tied parameter and, if asked, frozen ones.
#pragma once

#include <string>

#include "ashlar/ops.hpp"

namespace ashlar {

inline constexpr std::int64_t kBatch = 2;

/// Four units of element-wise layers; "scale" is tied: the first unit owns it, the last uses it
/// again.
inline Value tiny_model(Tracer& t, std::int64_t width, DType dtype, bool freeze) {
  const auto declare = [&](const char* name, double deviation, bool trainable = true) {
    return t.parameter(
        {name, {width}, dtype, 0, trainable, true, {Initializer::Kind::normal, deviation}});
  };
  Value x = cast(t.input("x", DType::f32, {kBatch, width}), dtype);
  const auto tied = [&] {
    const auto unit = t.unit("first");
    return declare("scale", 0.5);
  };
  {
    const auto unit = t.unit("first");
    x = tanh(add(multiply(x, tied()), declare("first.shift", 0.1)));
  }
  for (const char* name : {"middle.0", "middle.1"}) {
    const auto unit = t.unit(name);
    // A value beside a view of itself; and a gradient that is the cotangent that flows on.
    x = subtract(x, slice(x, 0, 0, 1));
    x = add(x, t.parameter({std::string(name) + ".whole",
                            {kBatch, width},
                            dtype,
                            0,
                            true,
                            true,
                            {Initializer::Kind::normal, 0.1}}));
    const Value w = declare(std::string(name).append(".w").c_str(), 0.3);
    const Value frozen = declare(std::string(name).append(".frozen").c_str(), 0.3, !freeze);
    x = tanh(add(multiply(x, w), frozen));
  }
  const auto unit = t.unit("last");
  const Value y = subtract(multiply(x, tied()), declare("last.target", 1));
  return cast(mean(multiply(y, y)), DType::f32);
}

}  // namespace ashlar
