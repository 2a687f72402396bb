// Shapes at which kernels change their ways: rows that get a whole block, sums in several stages,
// tiles of columns, nothing at all.
#include <doctest/doctest.h>

#include <array>
#include <cstring>
#include <vector>

#include "ashlar/ops.hpp"
#include "emulated/device_call.hpp"
#include "ops/harness.hpp"

namespace ashlar::test {
namespace {

using Values = std::span<const Value>;

Case norms(const Shape& shape) {
  const Shape row{shape[-1]};
  return {.name = "norms " + to_string(shape),
          .inputs = {{.shape = shape, .low = -2, .high = 3},
                     {.shape = shape},
                     {.shape = row},
                     {.shape = row}},
          .build = [](Tracer&, Values x) {
            const auto [total, y] = add_layer_norm(x[0], x[1], x[2], x[3]);
            return std::vector{total, y, layer_norm(x[0], x[2], x[3]), rms_norm(x[1], x[2])};
          }};
}

Case rows(const Shape& shape) {
  const Shape targets(shape.extents().first(static_cast<std::size_t>(shape.rank() - 1)));
  return {.name = "rows " + to_string(shape),
          .inputs = {{.shape = shape, .low = -9, .high = 9},
                     {.shape = targets,
                      .low = -1,
                      .high = static_cast<double>(shape[-1]),
                      .integer = true}},
          .build = [](Tracer&, Values x) {
            return std::vector{softmax(x[0]), cross_entropy(x[0], x[1])};
          }};
}

Case sums(const Shape& shape, std::uint32_t axes) {
  return {.name = "sum " + to_string(shape),
          .inputs = {{.shape = shape}},
          .build = [axes](Tracer&, Values x) {
            const int last = x[0].shape().rank() - 1;
            const Value part = slice(x[0], last, 1, x[0].shape()[last]);
            return std::vector{sum(x[0], axes), mean(x[0]), sum(transpose(x[0], 0, 1), axes),
                               sum(part, axes)};
          }};
}

/// How three sums lie: in rows, in columns, or in rows of a transposed view.
enum class SumLayout : std::uint8_t { rows, columns, turned };

/// Terms of 1 between a large one and its negative, which float would swallow.
template <typename T, typename Out>
void check_sum(SumLayout layout, std::int64_t terms) {
  constexpr std::int64_t kSums = 3;
  constexpr float kLarge = 1 << 25;
  const bool columns = layout == SumLayout::columns, rows = layout == SumLayout::rows;
  const Shape shape = columns ? Shape{terms, kSums} : Shape{kSums, terms};
  const std::int64_t step = rows ? 1 : kSums, other = rows ? terms : 1;
  const Shape strides = columns ? Shape{step, other} : Shape{other, step};
  std::vector<T> x(static_cast<std::size_t>(terms * kSums), T(1.0F));
  for (std::int64_t i = 0; i < kSums; ++i) {
    x[static_cast<std::size_t>(i * other)] = T(kLarge);
    x[static_cast<std::size_t>(i * other + (terms - 1) * step)] = T(-kLarge);
  }
  DeviceCall call{.run = cuda::sum,
                  .attributes = {{"axes", std::int64_t{columns ? 0b01 : 0b10}}},
                  .inputs = {TensorView(x.data(), dtype_of<T>, shape, strides)},
                  .outputs = {{dtype_of<Out>, {kSums}}}};
  const std::array types{TensorType{dtype_of<T>, shape}};
  call.workspace = cuda::sum_workspace({types, call.outputs, call.attributes});
  Out sums[kSums];
  std::memcpy(sums, run_once(call).data(), sizeof sums);
  for (const Out sum : sums) CHECK(float(sum) == float(Out(static_cast<float>(terms - 2))));
}

Case tables(const Shape& tokens, std::int64_t vocabulary, std::int64_t channels) {
  return {.name = "tables " + to_string(tokens),
          .inputs = {{.shape = tokens,
                      .low = 0,
                      .high = static_cast<double>(vocabulary),
                      .integer = true},
                     {.shape = {vocabulary, channels}},
                     {.shape = {tokens[-1] + 3, channels}}},
          .build = [](Tracer&, Values x) { return std::vector{embedding(x[0], x[1], x[2])}; }};
}

}  // namespace

TEST_CASE("kernels: rows that get a whole block") {
  check(norms({3, 1031}));
  check(norms({2, 1600}));
  check(rows({3, 1031}));
  check(rows({2, 2, 2056}));
}

TEST_CASE("kernels: sums of several chunks, by rows and by columns") {
  check(sums({3, 1300}, 0b10));
  check(sums({1300, 3}, 0b01));
  check(sums({1300, 3}, 0b10));
  check(sums({40, 60}, 0b11));
  check(sums({1100, 2, 3}, 0b101));
  check(sums({1100, 2, 3}, 0b001));
  check(sums({130, 301}, 0b01));
}

TEST_CASE("kernels: sums lose no term, whatever is added before it, by every way") {
  for (const std::int64_t terms : {5, 1300})
    for (const SumLayout layout : {SumLayout::rows, SumLayout::columns, SumLayout::turned}) {
      CAPTURE(terms);
      CAPTURE(static_cast<int>(layout));
      check_sum<float, float>(layout, terms);
      check_sum<float, bf16>(layout, terms);
      check_sum<bf16, float>(layout, terms);
      check_sum<bf16, bf16>(layout, terms);
    }
}

TEST_CASE("kernels: gradients of tables over several tiles") {
  check(tables({3, 100}, 5, 300));
  check(tables({1, 700}, 3, 8));
  check(tables({2, 1}, 40, 257));
}

TEST_CASE("kernels: nothing to do") {
  check(norms({0, 8}));
  check(rows({0, 8}));
  check(sums({0, 4}, 0b01));
  check(tables({0, 3}, 4, 8));
  check({.name = "empty", .inputs = {{.shape = {0}}}, .build = [](Tracer&, Values x) {
           return std::vector{gelu(x[0]), add(x[0], x[0])};
         }});
}

}  // namespace ashlar::test
