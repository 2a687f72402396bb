// Dropout: what its random numbers depend on, and on what they do not.
#include <doctest/doctest.h>

#include <cmath>

#include "ashlar/error.hpp"
#include "ashlar/ops.hpp"
#include "base/math/philox.hpp"
#include "ops/dropout_kernels.hpp"
#include "ops/harness.hpp"

namespace ashlar::test {
namespace {

Case drop(const Shape& shape, double probability) {
  return {.name = "dropout " + to_string(shape),
          .inputs = {{.shape = shape, .low = 1, .high = 2}},
          .build = [probability](Tracer&, std::span<const Value> x) {
            return std::vector{dropout(x[0], probability)};
          }};
}

Doubles ones(std::int64_t n) { return Doubles(static_cast<std::size_t>(n), 1.0); }

}  // namespace

TEST_CASE("ops: dropout is linear and its derivative has the same mask") {
  check(drop({3, 7}, 0.3));
  check(drop({2, 5, 401}, 0.5));
}

TEST_CASE("ops: dropout keeps 1 - p of the elements and the mean") {
  const std::int64_t n = 200000;
  for (const double p : {0.1, 0.5, 0.9}) {
    const Doubles y =
        run(drop({1, n}, p), std::vector<Doubles>{ones(n)}, {.dtype = DType::f32}).values[0];
    double kept = 0, total = 0, neighbours = 0;
    for (std::size_t i = 0; i < y.size(); ++i) {
      kept += y[i] != 0 ? 1 : 0;
      total += y[i];
      neighbours += i > 0 && y[i] != 0 && y[i - 1] != 0 ? 1 : 0;
    }
    const double deviation = std::sqrt(p * (1 - p) / static_cast<double>(n));
    CHECK(std::abs(kept / static_cast<double>(n) - (1 - p)) < 4 * deviation);
    CHECK(std::abs(total / static_cast<double>(n) - 1) < 4 * deviation / (1 - p));
    CHECK(std::abs(neighbours / static_cast<double>(n) - (1 - p) * (1 - p)) < 8 * deviation);
  }
}

TEST_CASE("ops: the mask is Philox of (seed, step, micro-batch, op, global sample, element)") {
  const Case c = drop({2, 37}, 0.4);
  RunContext context;
  context.seed = 0x123456789abcdefU;
  context.step = 5;
  context.micro_batch = 3;
  context.first_sample = 11;
  const Doubles y = run(c, std::vector<Doubles>{ones(74)}, {.context = context}).values[0];
  const std::uint64_t key = kernels::dropout_key(context.seed, 1);
  const std::uint64_t stream = kernels::dropout_stream(5, 3);
  for (std::uint64_t i = 0; i < 74; ++i) {
    const std::uint64_t element = 11 * 37 + i;
    const std::uint32_t word = philox(key, stream, element / 4)[element % 4];
    CHECK((y[i] == 0) == (word < 0.4 * 0x1p32));
  }
}

TEST_CASE("ops: the mask does not depend on how samples are split over ranks") {
  const std::int64_t elements = 4099;  // not a multiple of 4: samples begin within a block
  const Doubles whole = run(drop({6, elements}, 0.25), std::vector<Doubles>{ones(6 * elements)},
                            {.dtype = DType::f32})
                            .values[0];
  Doubles parts;
  for (const std::int64_t first : {0, 2, 4}) {
    RunContext context;
    context.first_sample = first;
    const Doubles part = run(drop({2, elements}, 0.25), std::vector<Doubles>{ones(2 * elements)},
                             {.dtype = DType::f32, .context = context})
                             .values[0];
    parts.insert(parts.end(), part.begin(), part.end());
  }
  CHECK(parts == whole);
}

TEST_CASE("ops: masks of steps, micro-batches, seeds and ops differ; probability 0 is x itself") {
  const std::vector<Doubles> x{ones(1000)};
  const auto mask = [&](const RunContext& context) {
    return run(drop({1, 1000}, 0.5), x, {.context = context}).values[0];
  };
  RunContext other_seed, other_step, other_micro_batch;
  other_seed.seed = 1;
  other_step.step = 2;
  other_micro_batch.micro_batch = 1;
  const Doubles base = mask({});
  CHECK(mask({}) == base);
  CHECK(mask(other_seed) != base);
  CHECK(mask(other_step) != base);
  CHECK(mask(other_micro_batch) != base);

  Case two = drop({1, 1000}, 0.5);
  two.build = [](Tracer&, std::span<const Value> v) {
    return std::vector{dropout(v[0], 0.5), dropout(v[0], 0.5)};
  };
  const Result both = run(two, x, {});
  CHECK(both.values[0] != both.values[1]);

  Tracer tracer;
  const Value v = tracer.input("x", DType::f32, {3});
  CHECK(dropout(v, 0).id() == v.id());
  CHECK_THROWS_AS(dropout(v, 1), InvalidArgument);
}

}  // namespace ashlar::test
