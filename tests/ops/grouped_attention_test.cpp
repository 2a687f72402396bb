// Attention with shared keys and values, over samples and over sequences of given boundaries.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <cmath>

#include "ashlar/error.hpp"
#include "ashlar/ops.hpp"
#include "ops/harness.hpp"

namespace ashlar::test {
namespace {

using Values = std::span<const Value>;

struct Sizes {
  std::int64_t batch, positions, heads, kv_heads, size;
  Doubles boundaries = {};  // empty: samples
};

/// softmax(q k^T / sqrt(D)) v of one query after the other, over the keys from its sequence's first
/// row to its own.
Doubles naive(const Sizes& s, std::span<const Doubles> x) {
  const auto at = [&](const Doubles& rows, std::int64_t heads, std::int64_t row, std::int64_t head,
                      std::int64_t d) {
    return rows[static_cast<std::size_t>((row * heads + head) * s.size + d)];
  };
  Doubles out;
  for (std::int64_t row = 0; row < s.batch * s.positions; ++row) {
    std::int64_t first = row / s.positions * s.positions;
    if (!s.boundaries.empty())
      for (const double b : s.boundaries)
        if (b <= static_cast<double>(row)) first = static_cast<std::int64_t>(b);
    for (std::int64_t head = 0; head < s.heads; ++head) {
      const std::int64_t shared = head / (s.heads / s.kv_heads);
      Doubles p;
      double total = 0;
      for (std::int64_t key = first; key <= row; ++key) {
        double score = 0;
        for (std::int64_t d = 0; d < s.size; ++d)
          score += at(x[0], s.heads, row, head, d) * at(x[1], s.kv_heads, key, shared, d);
        p.push_back(std::exp(score / std::sqrt(static_cast<double>(s.size))));
        total += p.back();
      }
      for (std::int64_t d = 0; d < s.size; ++d) {
        double sum = 0;
        for (std::int64_t key = first; key <= row; ++key)
          sum += p[static_cast<std::size_t>(key - first)] * at(x[2], s.kv_heads, key, shared, d);
        out.push_back(sum / total);
      }
    }
  }
  return out;
}

Case grouped(const Sizes& s) {
  Case c{.name = fmt::format("B={} T={} H={} G={} D={} S={}", s.batch, s.positions, s.heads,
                             s.kv_heads, s.size, s.boundaries.size()),
         .inputs = {{.shape = {s.batch, s.positions, s.heads * s.size}, .low = -2, .high = 2},
                    {.shape = {s.batch, s.positions, s.kv_heads * s.size}, .low = -2, .high = 2},
                    {.shape = {s.batch, s.positions, s.kv_heads * s.size}, .low = -2, .high = 2}},
         .build =
             [s](Tracer&, Values x) {
               return std::vector{grouped_query_attention(
                   x[0], x[1], x[2], static_cast<int>(s.heads), static_cast<int>(s.kv_heads),
                   x.size() > 3 ? x[3] : Value())};
             },
         .oracle = [s](std::span<const Doubles> x) { return Outputs{naive(s, x)}; }};
  if (!s.boundaries.empty())
    c.inputs.push_back({.shape = {static_cast<std::int64_t>(s.boundaries.size())},
                        .integer = true,
                        .values = s.boundaries});
  return c;
}

}  // namespace

TEST_CASE("ops: grouped attention equals the naive softmax, any positions, groups and sizes") {
  Case one = grouped({1, 1, 1, 1, 8});
  one.inputs[0].differentiable = one.inputs[1].differentiable = false;  // 0 but for rounding
  check(one);
  check(grouped({2, 5, 4, 2, 8}));
  check(grouped({1, 70, 6, 2, 32}));
  check(grouped({2, 65, 3, 1, 48}));
  check(grouped({1, 131, 2, 2, 5}));
}

TEST_CASE("ops: grouped attention stays inside of sequences") {
  check(grouped({1, 9, 2, 1, 8, {0, 9}}));
  check(grouped({1, 9, 4, 2, 8, {0, 1, 4, 9}}));
  check(grouped({2, 6, 2, 2, 5, {0, 0, 7, 7, 12, 12}}));
  check(grouped({1, 205, 2, 1, 16, {0, 63, 64, 129, 200, 205}}));
}

TEST_CASE("ops: a head for each head of queries gives the bits of packed attention") {
  const Case packed{
      .name = "packed",
      .inputs = {{.shape = {2, 130, 3 * 32}, .low = -2, .high = 2}},
      .build = [](Tracer&, Values x) { return std::vector{causal_attention(x[0], 2)}; }};
  Case apart = packed, sequences = packed;
  apart.build = [](Tracer&, Values x) {
    return std::vector{grouped_query_attention(slice(x[0], 2, 0, 32), slice(x[0], 2, 32, 64),
                                               slice(x[0], 2, 64, 96), 2, 2)};
  };
  sequences.inputs.push_back({.shape = {3}, .integer = true, .values = {0, 130, 260}});
  sequences.build = [](Tracer&, Values x) {
    return std::vector{grouped_query_attention(slice(x[0], 2, 0, 32), slice(x[0], 2, 32, 64),
                                               slice(x[0], 2, 64, 96), 2, 2, x[1])};
  };
  const std::vector<Doubles> x = random_inputs(sequences);
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const Run how{.dtype = dtype, .backward = true};
    const auto expected = run(packed, std::span(x).first(1), how);
    CHECK(run(apart, std::span(x).first(1), how).values == expected.values);
    CHECK(run(sequences, x, how).values == expected.values);
  }
}

TEST_CASE("ops: large scores of grouped attention give no NaN") {
  Case c = grouped({1, 70, 2, 1, 32, {0, 3, 70}});
  for (std::size_t i = 0; i < 3; ++i) c.inputs[i].low = -300, c.inputs[i].high = 300;
  for (const DType dtype : {DType::f32, DType::bf16})
    for (const Doubles& values :
         run(c, random_inputs(c), {.dtype = dtype, .backward = true}).values)
      for (const double v : values) REQUIRE(std::isfinite(v));
}

TEST_CASE("ops: boundaries that are none, and operands that do not fit, are refused") {
  const auto with = [](const Doubles& boundaries) {
    const Case c = grouped({1, 9, 2, 1, 8, boundaries});
    run(c, random_inputs(c), {});
  };
  CHECK_THROWS_WITH_AS(with({0, 5, 8}), doctest::Contains("from 0 to 8, not from 0 to 9"),
                       InvalidArgument);
  CHECK_THROWS_WITH_AS(with({1, 5, 9}), doctest::Contains("from 1 to 9"), InvalidArgument);
  CHECK_THROWS_WITH_AS(with({0, 7, 5, 9}), doctest::Contains("boundary 7 at index 1 is above"),
                       InvalidArgument);
  CHECK_THROWS_AS(with({0}), InvalidArgument);
  Tracer tracer;
  const Value q = tracer.input("q", DType::f32, {2, 3, 12}),
              k = tracer.input("k", DType::f32, {2, 3, 4});
  CHECK_THROWS_AS(grouped_query_attention(q, k, q, 3, 1), InvalidArgument);
  CHECK_THROWS_AS(grouped_query_attention(q, k, k, 3, 2), InvalidArgument);
  CHECK_THROWS_AS(grouped_query_attention(q, k, k, 5, 1), InvalidArgument);
  CHECK_THROWS_AS(grouped_query_attention(q, k, k, 3, 1, q), InvalidArgument);
}

}  // namespace ashlar::test
