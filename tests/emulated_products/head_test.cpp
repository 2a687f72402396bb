// The language-model head on CUDA's side against the CPU's rows; matmul, linear and linear_gelu are
// compared by the cases of ops/product_rows_test.cpp.
#include <doctest/doctest.h>

#include <array>

#include "ashlar/ops.hpp"
#include "cuda/products.hpp"
#include "emulated/device_call.hpp"
#include "ops/harness.hpp"
#include "ops/product/linear_cross_entropy_rows.hpp"

namespace ashlar::test {
namespace {

struct Problem {
  std::int64_t rows, channels, vocabulary;
};

std::vector<Input> inputs_of(const Problem& p) {
  return {
      {.shape = {p.rows, p.channels}},
      {.shape = {p.vocabulary, p.channels}},
      {.shape = {p.rows}, .low = -1, .high = static_cast<double>(p.vocabulary), .integer = true}};
}

/// Loss and gradients as two nodes.
Case pair_case(const Problem& p) {
  return {.name = "linear_cross_entropy",
          .inputs = inputs_of(p),
          .build = [](Tracer&, std::span<const Value> x) {
            return std::vector{linear_cross_entropy(x[0], x[1], x[2])};
          }};
}

/// The row that computes both, with the gradients that are asked for.
Case fused_case(const Problem& p, bool dx, bool dweight, bool wide) {
  Case c{.name = "linear_cross_entropy_with_gradient",
         .inputs = inputs_of(p),
         .build = [=](Tracer& tracer, std::span<const Value> x) {
           const DType dtype = wide ? DType::f32 : x[0].dtype();
           const std::array inputs = {x[0], x[1], x[2], constant(tracer, 0.75, DType::f32, {})};
           return tracer.apply(
               kLinearCrossEntropyWithGradient, inputs,
               {{"dx", std::int64_t{dx}},
                {"dweight", dweight ? static_cast<std::int64_t>(dtype) : std::int64_t{-1}}});
         }};
  for (Input& input : c.inputs) input.differentiable = false;
  return c;
}

}  // namespace

TEST_CASE("emulated: the head as two nodes, with second derivatives") {
  check(pair_case({6, 4, 7}));
  check(pair_case({37, 20, 131}));
  check(pair_case({5, 12, 64}));
  check(pair_case({5, 12, 65}));
  check(pair_case({0, 4, 7}));
}

TEST_CASE("emulated: the head as one node, in one chunk and in three") {
  for (const Problem& p : {Problem{40, 24, 97}, Problem{7, 16, 50}, Problem{7, 16, 64},
                           Problem{2 * 2048 + 5, 8, 11}}) {
    CAPTURE(p.rows);
    check(fused_case(p, true, true, false));
    check(fused_case(p, true, true, true));
  }
  check(fused_case({9, 8, 64}, true, false, false));
  check(fused_case({9, 8, 64}, false, true, false));
  check(fused_case({0, 8, 64}, true, true, false));
}

TEST_CASE("emulated: the head's products see a vocabulary of whole units alone") {
  check(fused_case({9, 8, 1009}, true, true, false));
  int padded = 0;
  for (const cuda::AlgorithmEntry& entry : cuda::process_algorithms().chosen()) {
    const Gemm& g = entry.key.product.gemm;
    for (const std::int64_t extent : {g.m, g.n, g.k, g.lda, g.ldb, g.ldc}) {
      CHECK(extent != 1009);
      padded += extent == 1024;
    }
  }
  CHECK(padded > 0);
}

}  // namespace ashlar::test
