// The kernels that prove the emulator, on a GPU: device.h means the same on both.
#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <vector>

#include "ashlar/error.hpp"
#include "emulated/kernels.hpp"

namespace emulated {
namespace {

using ashlar::StreamRef;
using ashlar::cuda::check;
using ashlar::cuda::launch;

/// Device memory of a test.
template <typename T>
class Array {
 public:
  explicit Array(std::size_t size) : size_(size) { check(cudaMalloc(&data_, size * sizeof(T))); }
  explicit Array(const std::vector<T>& values) : Array(values.size()) {
    check(cudaMemcpy(data_, values.data(), size_ * sizeof(T), cudaMemcpyHostToDevice));
  }
  ~Array() { cudaFree(data_); }
  Array(const Array&) = delete;
  Array& operator=(const Array&) = delete;
  T* data() const { return data_; }
  std::vector<T> to_vector() const {
    std::vector<T> values(size_);
    check(cudaMemcpy(values.data(), data_, size_ * sizeof(T), cudaMemcpyDeviceToHost));
    return values;
  }

 private:
  T* data_ = nullptr;
  std::size_t size_;
};

std::vector<float> waves(std::size_t count) {
  std::vector<float> values(count);
  for (std::size_t i = 0; i < count; ++i) values[i] = std::sin(static_cast<float>(i));
  return values;
}

}  // namespace

TEST_CASE("cuda: a block reduces with shuffles and shared memory") {
  const std::vector<float> rows = waves(3 * 333);
  const Array<float> in(rows);
  const Array<float> out(3);
  launch(3, 256, 0, StreamRef{}, sum_rows, out.data(), in.data(), 333);
  const std::vector<float> sums = out.to_vector();
  for (std::size_t r = 0; r < 3; ++r) {
    double sum = 0.0;
    for (std::size_t i = 0; i < 333; ++i) sum += rows[r * 333 + i];
    CHECK(sums[r] == doctest::Approx(sum).epsilon(1e-5));
  }
}

TEST_CASE("cuda: a layer norm with more dynamic shared memory than the default") {
  constexpr int kColumns = 16384;
  const std::vector<float> values = waves(kColumns);
  std::vector<ashlar::bf16> row;
  for (const float value : values) row.emplace_back(value);
  const Array<ashlar::bf16> in(row);
  const Array<ashlar::bf16> out(row.size());
  launch(1, 256, kColumns * sizeof(float), StreamRef{}, layer_norm, out.data(), in.data(),
         kColumns);
  double square = 0.0;
  for (const ashlar::bf16 value : out.to_vector()) square += float{value} * float{value};
  CHECK(square / kColumns == doctest::Approx(1.0).epsilon(1e-2));
}

TEST_CASE("cuda: a grid of two dimensions transposes through a tile") {
  const std::vector<float> values = waves(70 * 45);
  const Array<float> in(values);
  const Array<float> out(values.size());
  launch(dim3(2, 3), dim3(32, 8), 0, StreamRef{}, transpose, out.data(), in.data(), 70, 45);
  const std::vector<float> turned = out.to_vector();
  for (std::size_t y = 0; y < 70; ++y)
    for (std::size_t x = 0; x < 45; ++x) REQUIRE(turned[x * 70 + y] == values[y * 45 + x]);
}

TEST_CASE("cuda: all 16-bit floats widen and round as on the host") {
  std::vector<std::uint16_t> all(1 << 16);
  for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<std::uint16_t>(i);
  const Array<std::uint16_t> in(all);
  const Array<std::uint16_t> half(all.size());
  const Array<std::uint16_t> brain(all.size());
  launch(256, 256, 0, StreamRef{}, round_trip, half.data(), brain.data(), in.data());
  const auto halves = half.to_vector();
  const auto brains = brain.to_vector();
  const auto is_nan = [](std::uint16_t bits, int infinity) { return (bits & 0x7fff) > infinity; };
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (!is_nan(all[i], 0x7c00)) REQUIRE(halves[i] == all[i]);
    if (!is_nan(all[i], 0x7f80)) REQUIRE(brains[i] == all[i]);
    REQUIRE(is_nan(all[i], 0x7c00) == is_nan(halves[i], 0x7c00));
    REQUIRE(is_nan(all[i], 0x7f80) == is_nan(brains[i], 0x7f80));
  }
}

TEST_CASE("cuda: a launch that CUDA refuses throws and leaves no error behind") {
  CHECK_THROWS_AS(launch(1, 2048, 0, StreamRef{}, sum_rows, nullptr, nullptr, 1),
                  ashlar::InvalidArgument);
  CHECK_THROWS_WITH_AS(
      launch(1, 32, std::size_t{227} << 10, StreamRef{}, sum_rows, nullptr, nullptr, 1),
      doctest::Contains("device_test.cu"), ashlar::CudaError);
  CHECK(cudaGetLastError() == cudaSuccess);
}

}  // namespace emulated
