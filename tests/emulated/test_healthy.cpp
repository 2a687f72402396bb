// Correct kernels pass in every order and give the right results.
#include <doctest/doctest.h>

#include <cmath>
#include <numeric>

#include "emulated/kernels.hpp"
#include "emulator/buffer.hpp"
#include "emulator/run_in_all_orders.hpp"

namespace emulated {
using ashlar::bf16;
using ashlar::StreamRef;
using ashlar::cuda::launch;
using emulator::Buffer;
using emulator::run_in_all_orders;

namespace {

std::vector<float> waves(std::size_t count) {
  std::vector<float> values(count);
  for (std::size_t i = 0; i < count; ++i) values[i] = std::sin(static_cast<float>(i));
  return values;
}

}  // namespace

TEST_CASE("emulator: a block reduces with shuffles and shared memory") {
  constexpr int kRows = 5;
  constexpr int kColumns = 333;
  const std::vector<float> rows = waves(kRows * kColumns);
  for (const unsigned threads : {32U, 96U, 256U, 1024U}) {
    CAPTURE(threads);
    const std::vector<float> sums = run_in_all_orders([&] {
      const Buffer<float> in(rows);
      const Buffer<float> out(kRows);
      launch(kRows, threads, 0, StreamRef{}, sum_rows, out.data(), in.data(), kColumns);
      return out.to_vector();
    });
    for (int r = 0; r < kRows; ++r) {
      const auto* row = rows.data() + r * kColumns;
      CHECK(sums[static_cast<std::size_t>(r)] ==
            doctest::Approx(std::accumulate(row, row + kColumns, 0.0)).epsilon(1e-5));
    }
  }
}

TEST_CASE("emulator: a layer norm over bf16 keeps its row in dynamic shared memory") {
  constexpr int kRows = 3;
  constexpr int kColumns = 256;
  const std::vector<float> values = waves(kRows * kColumns);
  const std::vector<bf16> rows(values.begin(), values.end());
  const std::vector<bf16> normed = run_in_all_orders([&] {
    const Buffer<bf16> in(rows);
    const Buffer<bf16> out(rows.size());
    launch(kRows, 64, kColumns * sizeof(float), StreamRef{}, layer_norm, out.data(), in.data(),
           kColumns);
    return out.to_vector();
  });
  for (std::size_t r = 0; r < kRows; ++r) {
    double mean = 0.0;
    double square = 0.0;
    for (std::size_t i = 0; i < kColumns; ++i) mean += rows[r * kColumns + i] / double{kColumns};
    for (std::size_t i = 0; i < kColumns; ++i)
      square += std::pow(rows[r * kColumns + i] - mean, 2) / kColumns;
    for (std::size_t i = 0; i < kColumns; ++i)
      REQUIRE(normed[r * kColumns + i] ==
              doctest::Approx((rows[r * kColumns + i] - mean) / std::sqrt(square)).epsilon(1e-2));
  }
}

TEST_CASE("emulator: a grid of two dimensions transposes through a tile") {
  constexpr int kHeight = 70;
  constexpr int kWidth = 45;
  const std::vector<float> values = waves(kHeight * kWidth);
  const std::vector<float> turned = run_in_all_orders([&] {
    const Buffer<float> in(values);
    const Buffer<float> out(values.size());
    launch(dim3(2, 3), dim3(32, 8), 0, StreamRef{}, transpose, out.data(), in.data(), kHeight,
           kWidth);
    return out.to_vector();
  });
  for (std::size_t y = 0; y < kHeight; ++y)
    for (std::size_t x = 0; x < kWidth; ++x)
      REQUIRE(turned[x * kHeight + y] == values[y * kWidth + x]);
}

namespace {

__global__ void number_threads(unsigned* out) {
  const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  out[block * blockDim.x * blockDim.y * blockDim.z + thread] = 1000 * block + thread;
}

/// Eight results per lane of every function of warps. // (8, 32)
__global__ void warp_functions(int* out) {
  const int lane = static_cast<int>(threadIdx.x);
  const unsigned half = lane < 16 ? 0x0000ffffU : 0xffff0000U;
  const int results[] = {__shfl_sync(~0U, lane, 5),
                         __shfl_sync(~0U, lane, 9, 8),
                         __shfl_down_sync(~0U, lane, 3),
                         __shfl_down_sync(~0U, lane, 3, 8),
                         __shfl_up_sync(~0U, lane, 3, 8),
                         __shfl_xor_sync(half, lane, 9, 16),
                         static_cast<int>(__ballot_sync(half, lane % 3 == 0)),
                         2 * __any_sync(~0U, lane == 7) + __all_sync(half, lane < 16)};
  for (int i = 0; i < 8; ++i) out[i * 32 + lane] = results[i];
}

__global__ void barrier_votes(int* out) {
  const int thread = static_cast<int>(threadIdx.x);
  const int any = __syncthreads_or(thread == 50);
  const int all = __syncthreads_and(thread != 50);
  out[thread] = 100 * __syncthreads_count(thread >= 50) + 10 * any + all;
}

}  // namespace

TEST_CASE("emulator: indices of grids and blocks of three dimensions") {
  const auto numbers = run_in_all_orders([] {
    const Buffer<unsigned> out(2 * 3 * 4 * 5 * 2 * 3);
    launch(dim3(2, 3, 4), dim3(5, 2, 3), 0, StreamRef{}, number_threads, out.data());
    return out.to_vector();
  });
  for (unsigned i = 0; i < numbers.size(); ++i) REQUIRE(numbers[i] == 1000 * (i / 30) + i % 30);
}

TEST_CASE("emulator: functions of warps") {
  const auto results = run_in_all_orders([] {
    const Buffer<int> out(8 * 32);
    launch(1, 32, 0, StreamRef{}, warp_functions, out.data());
    return out.to_vector();
  });
  for (int lane = 0; lane < 32; ++lane) {
    CAPTURE(lane);
    const auto at = [&](int i) { return results[static_cast<std::size_t>(i * 32 + lane)]; };
    const int segment = lane / 8 * 8;
    CHECK(at(0) == 5);
    CHECK(at(1) == segment + 1);
    CHECK(at(2) == (lane + 3 < 32 ? lane + 3 : lane));
    CHECK(at(3) == (lane + 3 < segment + 8 ? lane + 3 : lane));
    CHECK(at(4) == (lane - 3 >= segment ? lane - 3 : lane));
    CHECK(at(5) == (lane ^ 9));
    CHECK(static_cast<unsigned>(at(6)) == (0x49249249U & (lane < 16 ? 0xffffU : 0xffff0000U)));
    CHECK(at(7) == 2 + (lane < 16));
  }
}

TEST_CASE("emulator: barriers that vote") {
  const auto results = run_in_all_orders([] {
    const Buffer<int> out(70);
    launch(1, 70, 0, StreamRef{}, barrier_votes, out.data());
    return out.to_vector();
  });
  for (const int result : results) CHECK(result == 2010);
}

TEST_CASE("emulator: all 16-bit floats widen and round as on the host") {
  const auto all = [] {
    std::vector<std::uint16_t> bits(1 << 16);
    std::iota(bits.begin(), bits.end(), std::uint16_t{0});
    return bits;
  }();
  const auto [halves, brains] = run_in_all_orders([&] {
    const Buffer<std::uint16_t> in(all);
    const Buffer<std::uint16_t> half(all.size());
    const Buffer<std::uint16_t> brain(all.size());
    launch(256, 256, 0, StreamRef{}, round_trip, half.data(), brain.data(), in.data());
    return std::tuple(half.to_vector(), brain.to_vector());
  });
  for (std::size_t i = 0; i < all.size(); ++i) {
    const float half = std::bit_cast<ashlar::f16>(all[i]);
    const float brain = std::bit_cast<bf16>(all[i]);
    if (!std::isnan(half)) REQUIRE(halves[i] == all[i]);
    if (!std::isnan(brain)) REQUIRE(brains[i] == all[i]);
    REQUIRE(std::isnan(half) == std::isnan(float{std::bit_cast<ashlar::f16>(halves[i])}));
    REQUIRE(std::isnan(brain) == std::isnan(float{std::bit_cast<bf16>(brains[i])}));
  }
}

}  // namespace emulated
