// run_product against the exact sum on random products: transposes, gaps between rows, batches,
// biases, accumulation, operands anywhere. Over the fake library, and on a GPU.
#pragma once

#include <doctest/doctest.h>

#include <cmath>
#include <initializer_list>
#include <limits>
#include <random>
#include <vector>

#include "cuda/products.hpp"
#include "support/elements.hpp"

namespace ashlar::test {

using cuda::Product;

inline std::int64_t pick(std::mt19937_64& random, std::initializer_list<std::int64_t> values) {
  return values.begin()[random() % values.size()];
}

inline Product random_product(std::mt19937_64& random) {
  const bool half = random() % 2 == 0;
  Product p{.gemm = {.m = pick(random, {0, 1, 3, 17, 40}),
                     .n = pick(random, {0, 1, 2, 16, 33}),
                     .k = pick(random, {0, 1, 5, 24, 50}),
                     .transpose_a = random() % 2 == 0,
                     .transpose_b = random() % 2 == 0,
                     .dtype = half ? DType::bf16 : DType::f32,
                     .result = half && random() % 2 == 0 ? DType::bf16 : DType::f32}};
  Gemm& g = p.gemm;
  const auto extra = random() % 3;
  g.accumulate = extra == 1;
  g.bias = extra == 2 && g.dtype == g.result;
  if (random() % 2 == 0) {
    g = with_leading_dimensions(g);
    g.lda += pick(random, {0, 1, 8});
    g.ldb += pick(random, {0, 3, 8});
    if (!g.bias) g.ldc += pick(random, {0, 5, 8});
  }
  p.batch = g.bias ? 1 : pick(random, {1, 1, 3});
  return p;
}

/// `Memory` of `elements`, each random, `shift` elements behind an aligned address.
template <class Memory>
class Operand {
 public:
  Operand(DType dtype, std::int64_t elements, std::int64_t shift, std::mt19937_64& random)
      : memory_(static_cast<std::size_t>((elements + shift) * size_of(dtype))),
        view_(memory_.data() + shift * size_of(dtype), dtype, {elements}) {
    std::uniform_real_distribution<double> uniform(-1, 1);
    for (std::int64_t i = 0; i < elements; ++i) set_element(view_, i, uniform(random));
  }
  const TensorView& view() const { return view_; }
  std::byte* data() const { return view_.data; }

 private:
  Memory memory_;
  TensorView view_;
};

/// @param Memory of a number of bytes, at data(), which the host and the stream's device reach
template <class Memory>
void check_product(Product p, std::int64_t shift, std::mt19937_64& random, StreamRef stream = {}) {
  const Gemm g = with_leading_dimensions(p.gemm);
  const std::int64_t of_a = (g.transpose_a ? g.k : g.m) * g.lda;
  const std::int64_t of_b = (g.transpose_b ? g.n : g.k) * g.ldb, of_c = g.m * g.ldc;
  const bool shared_b = random() % 2 == 0;
  p.stride_a = of_a;
  p.stride_b = shared_b ? 0 : of_b;
  p.stride_c = of_c;
  const Operand<Memory> a(g.dtype, p.batch * of_a, shift, random);
  const Operand<Memory> b(g.dtype, p.batch * of_b, shift, random),
      bias(g.dtype, g.n, shift, random);
  const Operand<Memory> c(g.result, p.batch * of_c, shift, random);
  const std::vector<std::byte> memory(c.data(), c.data() + c.view().bytes());
  const TensorView before(const_cast<std::byte*>(memory.data()), g.result, {p.batch * of_c});
  const Memory workspace(static_cast<std::size_t>(cuda::kProductWorkspace + 128));
  CAPTURE(describe(p));
  RunContext context;
  context.stream = stream;
  cuda::run_product(context, p, {a.data(), b.data(), bias.data(), c.data()}, workspace.data() + 64);
  stream.synchronize();

  const double sums = static_cast<double>(g.k + 2) * std::numeric_limits<float>::epsilon();
  const double epsilon = sums + (g.result == DType::bf16 ? 1.0 / 256 : 0);
  for (std::int64_t at = 0; at < p.batch * of_c; ++at) {
    const std::int64_t item = at / of_c, i = at % of_c / g.ldc, j = at % g.ldc;
    const double old = element(before, at), got = element(c.view(), at);
    if (j >= g.n) {
      if (g.k > 0 && got != old) FAIL("the gap behind row ", i, " was written");
      continue;
    }
    double sum = g.accumulate ? old : g.bias ? element(bias.view(), j) : 0;
    double magnitude = std::abs(sum);
    for (std::int64_t l = 0; l < g.k; ++l) {
      const double x =
          element(a.view(), item * p.stride_a + (g.transpose_a ? l * g.lda + i : i * g.lda + l));
      const double y =
          element(b.view(), item * p.stride_b + (g.transpose_b ? j * g.ldb + l : l * g.ldb + j));
      sum += x * y;
      magnitude += std::abs(x * y);
    }
    if (!(std::abs(got - sum) <= epsilon * magnitude))
      FAIL("row ", i, " column ", j, ": ", got, " instead of ", sum);
  }
}

}  // namespace ashlar::test
