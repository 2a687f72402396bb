// Causal attention against the naive softmax in double.
#include <doctest/doctest.h>

#include <cmath>

#include "ashlar/ops.hpp"
#include "ops/harness.hpp"

namespace ashlar::test {
namespace {

/// softmax(q k^T / sqrt(D) + mask) v, one query at a time.
Doubles naive_attention(const Doubles& qkv, int batch, int positions, int heads, int size) {
  const int channels = heads * size;
  const auto at = [&](int b, int t, int part, int h, int d) {
    return qkv[static_cast<std::size_t>(((b * positions + t) * 3 + part) * channels + h * size +
                                        d)];
  };
  Doubles out(static_cast<std::size_t>(batch * positions * channels));
  for (int b = 0; b < batch; ++b)
    for (int h = 0; h < heads; ++h)
      for (int t = 0; t < positions; ++t) {
        Doubles score(static_cast<std::size_t>(t + 1));
        double most = -1e300, total = 0;
        for (int s = 0; s <= t; ++s) {
          double sum = 0;
          for (int d = 0; d < size; ++d) sum += at(b, t, 0, h, d) * at(b, s, 1, h, d);
          score[static_cast<std::size_t>(s)] = sum / std::sqrt(size);
          most = std::max(most, score[static_cast<std::size_t>(s)]);
        }
        for (double& s : score) total += s = std::exp(s - most);
        for (int d = 0; d < size; ++d) {
          double sum = 0;
          for (int s = 0; s <= t; ++s)
            sum += score[static_cast<std::size_t>(s)] * at(b, s, 2, h, d);
          out[static_cast<std::size_t>((b * positions + t) * channels + h * size + d)] =
              sum / total;
        }
      }
  return out;
}

Case attention(int batch, int positions, int heads, int size, double range = 2) {
  return {.name = "attention B=" + std::to_string(batch) + " T=" + std::to_string(positions) +
                  " H=" + std::to_string(heads) + " D=" + std::to_string(size),
          .inputs = {{.shape = {batch, positions, 3 * heads * size}, .low = -range, .high = range}},
          .build =
              [heads](Tracer&, std::span<const Value> x) {
                return std::vector{causal_attention(x[0], heads)};
              },
          .oracle =
              [=](std::span<const Doubles> x) {
                return Outputs{naive_attention(x[0], batch, positions, heads, size)};
              }};
}

}  // namespace

TEST_CASE("ops: attention equals the naive softmax, any positions, heads and sizes") {
  check(attention(1, 1, 1, 32));
  check(attention(2, 2, 3, 32));
  check(attention(1, 17, 2, 64));
  check(attention(2, 64, 1, 64));
  check(attention(1, 65, 1, 64));
  check(attention(1, 127, 2, 48));
  check(attention(1, 131, 1, 128));
  check(attention(2, 200, 1, 80));
  check(attention(1, 33, 2, 5));
  check(attention(1, 70, 3, 1));
}

TEST_CASE("ops: large scores give no NaN") {
  const Case c = attention(1, 70, 2, 32, 300);
  const std::vector<Doubles> x = random_inputs(c);
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const Result result = run(c, x, {.dtype = dtype, .backward = true});
    for (const Doubles& values : result.values)
      for (const double v : values) REQUIRE(std::isfinite(v));
  }
}

}  // namespace ashlar::test
