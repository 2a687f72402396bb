// The element formulas of src/base/math give on a CUDA device what they give on the host, bit for
// bit.
#include <cuda_runtime.h>
#include <doctest/doctest.h>

#include <bit>
#include <stdexcept>
#include <vector>

#include "base/math/adamw.hpp"
#include "base/math/philox.hpp"
#include "base/math/scalar_math.hpp"
#include "base/math/sgd.hpp"
#include "cuda/kernels/device_math.hpp"

namespace ashlar {
namespace {

constexpr int kElements = 10'000;
constexpr std::uint64_t kKey = 0x5EED'0123'4567'89ABULL;

struct Element {
  float parameter, m, v, descended, momentum;
  std::uint32_t word;
  bool operator==(const Element&) const = default;
};

/// One element through every formula, with the arithmetic of the host or of kernels.
template <typename Math>
struct AllFormulas {
  AdamWFactors<float> adamw{0.5F, 0.9F, 0.1F, 0.95F, 0.05F, 1e-3F, 1e-2F, 1.5F, 1e-8F};
  SgdFactors<float> sgd{0.5F, 1e-2F, 0.9F, 1e-3F};

  constexpr Element operator()(std::uint64_t index) const {
    const RandomWords words = philox(kKey, 7, index);
    const float gradient = uniform(words[0]) - 0.5F;
    Element e{uniform(words[1]), uniform(words[2]), uniform(words[3]), uniform(words[1]), 0.25F,
              words[3]};
    scalar::adamw_element(e.parameter, e.m, e.v, gradient, adamw, Math{});
    scalar::sgd_momentum_element<true>(e.descended, e.momentum, gradient, sgd, Math{});
    return e;
  }
};

__global__ void evaluate(AllFormulas<cuda::DeviceMath> formulas, Element* out) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < kElements) out[i] = formulas(static_cast<std::uint64_t>(i));
}

void check(cudaError_t status) {
  if (status != cudaSuccess) throw std::runtime_error(cudaGetErrorString(status));
}

}  // namespace

TEST_CASE("cuda: Philox, AdamW and SGD give the host's bits") {
  Element* device = nullptr;
  check(cudaMalloc(&device, kElements * sizeof(Element)));
  evaluate<<<(kElements + 255) / 256, 256>>>({}, device);
  check(cudaGetLastError());
  std::vector<Element> from_device(kElements);
  check(
      cudaMemcpy(from_device.data(), device, kElements * sizeof(Element), cudaMemcpyDeviceToHost));
  check(cudaFree(device));
  for (int i = 0; i < kElements; ++i) {
    CAPTURE(i);
    REQUIRE(from_device[static_cast<std::size_t>(i)] ==
            AllFormulas<ScalarMath>{}(static_cast<std::uint64_t>(i)));
  }
}

}  // namespace ashlar
