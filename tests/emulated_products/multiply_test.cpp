// Products over the fake library, on memory that ends at a page nobody may touch.
#include <algorithm>

#include "emulated_products/fixture.hpp"
#include "emulator/memory_map.hpp"
#include "support/random_gradients.hpp"

namespace ashlar::test {

using emulator::GuardedMemory;

TEST_CASE("emulated: products are the sums of their operands") {
  std::mt19937_64 random(23);
  for (int trial = 0; trial < 300; ++trial)
    check_product<GuardedMemory>(random_product(random), pick(random, {0, 0, 1}), random);
  CHECK(emulator::damage().empty());
}

TEST_CASE("emulated: a bias is fused where it is aligned, else written first") {
  std::mt19937_64 random(29);
  const Product p{.gemm = {.m = 5, .n = 8, .k = 3, .bias = true}};
  for (const std::int64_t shift : {0, 1}) {
    const int fused = fake_cublaslt()->fused_biases, products = fake_cublaslt()->products;
    check_product<GuardedMemory>(p, shift, random);
    CHECK(fake_cublaslt()->fused_biases - fused == (shift == 0 ? 1 : 0));
    CHECK(fake_cublaslt()->products - products == 1);
  }
}

TEST_CASE("emulated: the gradients of linear layers are the sums of their operands") {
  std::mt19937_64 random(31);
  const int fused = fake_cublaslt()->fused_gradients;
  for (int trial = 0; trial < 200; ++trial) {
    check_weight_gradient<GuardedMemory>(random_gradient_case(random), random);
    check_gelu_backward<GuardedMemory>(random_gradient_case(random), random);
  }
  CHECK(fake_cublaslt()->fused_gradients > fused + 50);
  CHECK(emulator::damage().empty());
}

namespace {

/// How many products had a gradient of a bias beside them.
template <class Body>
int fused_by(const Body& body) {
  const int before = fake_cublaslt()->fused_gradients;
  body();
  return fake_cublaslt()->fused_gradients - before;
}

int fused_weight(const GradientCase& c) {
  std::mt19937_64 random(37);
  return fused_by([&] { check_weight_gradient<GuardedMemory>(c, random); });
}

int fused_gelu(const GradientCase& c) {
  std::mt19937_64 random(41);
  return fused_by([&] { check_gelu_backward<GuardedMemory>(c, random); });
}

}  // namespace

TEST_CASE("emulated: a weight's and its bias' gradient are one product where they have one type") {
  constexpr DType half = DType::bf16, wide = DType::f32;
  CHECK(fused_weight({6, 5, 7}) == 1);
  CHECK(fused_weight({6, 5, 7, half, half, half}) == 1);
  CHECK(fused_weight({6, 5, 7, half, wide, wide}) == 1);
  CHECK(fused_weight({1, 5, 7, half, wide, wide}) == 1);
  CHECK(fused_weight({6, 5, 7, half, half, wide}) == 0);
  CHECK(fused_weight({6, 5, 7, half, wide, half}) == 0);
  CHECK(fused_weight({6, 5, 7, half, half, half, 1}) == 0);
  CHECK(fused_weight({0, 5, 7}) == 0);
  CHECK(fused_weight({6, 0, 7}) == 0);
}

TEST_CASE("emulated: a product and gelu's backward are one in bf16, for whole packs of columns") {
  constexpr DType half = DType::bf16, wide = DType::f32;
  CHECK(fused_gelu({6, 5, 16, half, half, half}) == 1);
  CHECK(fused_gelu({6, 5, 16, half, half, wide}) == 0);
  CHECK(fused_gelu({6, 5, 16}) == 0);
  CHECK(fused_gelu({6, 5, 12, half, half, half}) == 0);
  CHECK(fused_gelu({6, 1, 16, half, half, half}) == 0);
  CHECK(fused_gelu({6, 5, 16, half, half, half, 1}) == 0);
  CHECK(fused_gelu({0, 5, 16, half, half, half}) == 0);
}

TEST_CASE(
    "emulated: where the library refuses an epilogue the kernels follow the product, for good") {
  Faults faults;
  cuda::Algorithms& algorithms = cuda::process_algorithms();
  const auto unsupported = [&] {
    return std::ranges::count(algorithms.chosen(), cuda::kNoAlgorithm,
                              &cuda::AlgorithmEntry::words);
  };
  const auto before = unsupported();
  std::int64_t m = 70;  // of kinds that no other test has
  const auto refused = [&] {
    ++m;
    return fused_weight({m, 5, 8}) + fused_gelu({m, 5, 8, DType::bf16, DType::bf16, DType::bf16});
  };
  faults->gradient_result = CUBLAS_STATUS_NOT_SUPPORTED;
  CHECK(refused() == 0);
  faults->gradient_result = CUBLAS_STATUS_INVALID_VALUE;
  CHECK(refused() == 0);
  CHECK(unsupported() == before + 4);
  faults->gradient_result = 0;
  --m;
  CHECK(refused() == 0);  // as chosen before
  CHECK(refused() == 2);
  faults->gradient_result = CUBLAS_STATUS_EXECUTION_FAILED;
  CHECK(cuda_error_of([&] { refused(); }).find("with bias_gradient") != std::string::npos);
}

}  // namespace ashlar::test
