// Products by the real cuBLASLt against the exact sum, on memory that host and device share.
#include <cuda_runtime_api.h>

#include "cuda/check.h"
#include "support/random_gradients.hpp"

namespace ashlar::test {
namespace {

class ManagedMemory {
 public:
  explicit ManagedMemory(std::size_t bytes) {
    cuda::check(cudaMallocManaged(&data_, bytes + 1));  // of 0 bytes there is none
  }
  ~ManagedMemory() { cudaFree(data_); }
  ManagedMemory(const ManagedMemory&) = delete;
  ManagedMemory& operator=(const ManagedMemory&) = delete;
  std::byte* data() const { return static_cast<std::byte*>(data_); }

 private:
  void* data_ = nullptr;
};

}  // namespace

TEST_CASE("cuda: products are the sums of their operands") {
  const Stream stream(Device{DeviceType::cuda, 0});
  std::mt19937_64 random(23);
  for (int trial = 0; trial < 300; ++trial)
    check_product<ManagedMemory>(random_product(random), pick(random, {0, 0, 1}), random, stream);
  for (const DType dtype : {DType::f32, DType::bf16})
    for (const bool bias : {false, true})
      check_product<ManagedMemory>(
          {.gemm = {.m = 256, .n = 384, .k = 768, .dtype = dtype, .result = dtype, .bias = bias}},
          0, random, stream);
}

TEST_CASE("cuda: the gradients of linear layers are the sums of their operands") {
  const Stream stream(Device{DeviceType::cuda, 0});
  std::mt19937_64 random(31);
  for (int trial = 0; trial < 200; ++trial) {
    check_weight_gradient<ManagedMemory>(random_gradient_case(random), random, stream);
    check_gelu_backward<ManagedMemory>(random_gradient_case(random), random, stream);
  }
  constexpr DType half = DType::bf16, wide = DType::f32;
  for (const GradientCase& c : {GradientCase{256, 384, 768},
                                {256, 384, 768, half, half, half},
                                {256, 384, 768, half, wide, wide}}) {
    check_weight_gradient<ManagedMemory>(c, random, stream);
    check_gelu_backward<ManagedMemory>(c, random, stream);
  }
  // Where cuBLASLt has none, the gradient takes products and sums of its own: slower, not wrong.
  for (const cuda::AlgorithmEntry& entry : cuda::process_algorithms().chosen()) {
    if (entry.key.product.epilogue == cuda::Epilogue::none) continue;
    if (entry.words == cuda::kNoAlgorithm) MESSAGE("refused: " << describe(entry.key.product));
  }
}

}  // namespace ashlar::test
