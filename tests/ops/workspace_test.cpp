// Scratch memory that must not grow with the rows or the positions.
#include <doctest/doctest.h>

#include "ops/attention_kernels.hpp"
#include "ops/product/head_plan.hpp"
#include "ops/product/machine.hpp"

namespace ashlar::test {
namespace {

std::int64_t head_bytes(std::int64_t rows, DType dtype, DType dweight) {
  const Head head{rows, 64, 5000, dtype, true, true, dweight};
  return HeadPlan(head, host_backend(1)).workspace_bytes();
}

AttentionSizes sizes(std::int64_t positions) { return {2 * positions, 2, positions, 4, 4, 64}; }

}  // namespace

TEST_CASE("ops: the head's workspace is the same for any number of rows") {
  const std::int64_t logits = 8192 * 5000 * 4;
  const std::int64_t bytes = head_bytes(1024, DType::f32, DType::f32);
  CHECK(head_bytes(8192, DType::f32, DType::f32) == bytes);
  CHECK(bytes < logits / 8);
  for (const DType dweight : {DType::f32, DType::bf16}) {  // of two or more blocks of 1024 rows
    CAPTURE(name_of(dweight));
    const std::int64_t half = head_bytes(2048, DType::bf16, dweight);
    CHECK(head_bytes(8192, DType::bf16, dweight) == half);
    CHECK(half < logits / 8);
  }
}

TEST_CASE("ops: attention has no scores of all positions") {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    CAPTURE(name_of(dtype));
    const auto forward = [&](std::int64_t positions) {
      return kernels::attention_workspace(sizes(positions), dtype);
    };
    const auto backward = [&](std::int64_t positions) {
      return kernels::attention_backward_workspace(sizes(positions), dtype);
    };
    CHECK(forward(4096) == forward(256));
    // Backward sums the gradients of one head's keys and values: two rows of f32 a position.
    CHECK(backward(4096) - backward(256) == (4096 - 256) * 2 * 64 * 4);
  }
}

}  // namespace ashlar::test
