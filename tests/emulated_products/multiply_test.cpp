// Products over the fake library, on memory that ends at a page nobody may touch.
#include "emulated_products/fixture.hpp"
#include "emulator/memory_map.hpp"
#include "support/random_products.hpp"

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

}  // namespace ashlar::test
