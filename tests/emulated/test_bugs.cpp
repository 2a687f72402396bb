// Each class of bug, seeded in a small kernel, is caught.
#include <doctest/doctest.h>

#include <cmath>
#include <stdexcept>

#include "cuda/device.h"
#include "emulator/buffer.hpp"
#include "emulator/run_in_all_orders.hpp"

namespace emulated {
using ashlar::StreamRef;
using ashlar::cuda::dynamic_shared;
using ashlar::cuda::launch;
using ashlar::cuda::load16;
using ashlar::cuda::load8;
using ashlar::cuda::shared;
using ashlar::cuda::store16;
using ashlar::cuda::store8;
using emulator::Buffer;
using emulator::KernelError;
using emulator::run_in_all_orders;

namespace {

constexpr unsigned kAll = 0xffffffffU;

/// What `kernel` gives for out[count], in all orders.
template <typename... P, typename... A>
std::vector<float> results(unsigned blocks, unsigned threads, std::size_t count,
                           void (*kernel)(float*, P...), A... arguments) {
  return run_in_all_orders([&] {
    const Buffer<float> out(count);
    launch(blocks, threads, 0, StreamRef{}, kernel, out.data(), arguments...);
    return out.to_vector();
  });
}

__global__ void reverse(float* out, bool with_barrier) {
  auto& values = shared<float[64], struct Values>();
  values[threadIdx.x] = static_cast<float>(threadIdx.x);
  if (with_barrier) __syncthreads();
  out[threadIdx.x] = values[63 - threadIdx.x];
}

__global__ void two_rounds(float* out, bool with_barrier) {
  auto& values = shared<float[64], struct Values>();
  float sum = 0.0F;
  for (unsigned round = 1; round < 3; ++round) {
    values[threadIdx.x] = static_cast<float>(round * threadIdx.x);
    __syncthreads();
    sum += values[(threadIdx.x + 32) % 64];
    if (with_barrier) __syncthreads();
  }
  out[threadIdx.x] = sum;
}

__global__ void neighbour_in_warp(float* out, bool with_barrier) {
  auto& values = shared<float[32], struct Values>();
  values[threadIdx.x] = static_cast<float>(threadIdx.x);
  if (with_barrier) __syncwarp();
  out[threadIdx.x] = values[threadIdx.x ^ 1U];
}

__global__ void sum_of_blocks(float* out) {
  if (blockIdx.x == 0 || std::isnan(out[0])) out[0] = 1.0F;
  out[0] += std::ldexp(1.0F, -static_cast<int>(blockIdx.x));
}

__global__ void two_barriers(float* out) {
  if (threadIdx.x < 32)
    __syncthreads();
  else
    __syncthreads();
  out[threadIdx.x] = 0.0F;
}

__global__ void early_exit(float* out, unsigned n) {
  if (threadIdx.x >= n) return;
  __syncthreads();
  out[threadIdx.x] = 0.0F;
}

__global__ void barrier_beside_shuffle(float* out) {
  float value = 1.0F;
  if (threadIdx.x == 7)
    __syncthreads();
  else
    value = __shfl_xor_sync(kAll, value, 1);
  out[threadIdx.x] = value;
}

}  // namespace

TEST_CASE("bugs: a missing barrier") {
  CHECK(results(1, 64, 64, reverse, true)[0] == 63.0F);
  CHECK_THROWS_WITH_AS(results(1, 64, 64, reverse, false),
                       doctest::Contains("depends on the order of threads"), KernelError);
  CHECK(results(1, 32, 32, neighbour_in_warp, true)[0] == 1.0F);
  CHECK_THROWS_AS(results(1, 32, 32, neighbour_in_warp, false), KernelError);
}

TEST_CASE("bugs: a barrier missing between a read and the next write") {
  CHECK(results(1, 64, 64, two_rounds, true)[0] == 3.0F * 32.0F);
  CHECK_THROWS_WITH_AS(results(1, 64, 64, two_rounds, false),
                       doctest::Contains("depends on the order of threads"), KernelError);
}

TEST_CASE("bugs: blocks that rely on each other's order") {
  CHECK_THROWS_AS(results(4, 1, 1, sum_of_blocks), KernelError);
}

TEST_CASE("bugs: a divergent barrier") {
  CHECK_THROWS_WITH_AS(results(1, 64, 64, two_barriers),
                       doctest::Contains("which waits at another barrier"), KernelError);
  CHECK_THROWS_WITH_AS(results(1, 32, 32, barrier_beside_shuffle),
                       doctest::Contains("for lane 7, which waits in __syncthreads"), KernelError);
}

TEST_CASE("bugs: an early exit before a barrier") {
  CHECK(results(1, 64, 64, early_exit, 64U)[63] == 0.0F);
  CHECK_THROWS_WITH_AS(results(1, 64, 64, early_exit, 63U),
                       doctest::Contains("waits for thread (63, 0, 0), which has exited"),
                       KernelError);
  CHECK_THROWS_AS(results(1, 64, 64, early_exit, 32U), KernelError);
}

namespace {

__global__ void read_at(float* out, const float* in, std::int64_t offset) {
  out[threadIdx.x] = in[offset];
}

__global__ void write_at(float* out, std::int64_t offset) { out[offset] = 1.0F; }

__global__ void copy16(float* out, const float* in, std::int64_t offset) {
  store16(out, load16(in + offset));
}

__global__ void copy8(float* out, const float* in, std::int64_t offset) {
  store8(out, load8(in + offset));
}

__global__ void store16_at(float* out, std::int64_t offset) {
  store16(out + offset, make_uint4(1, 2, 3, 4));
}

__global__ void write_shared(float* out, unsigned index) {
  auto& values = shared<float[31], struct Values>();
  for (unsigned i = 0; i < 31; ++i) values[i] = 0.0F;
  float* at = values;
  at[index] = 1.0F;
  out[0] = values[0];
}

__global__ void read_shared(float* out, unsigned index) {
  auto& values = shared<float[31], struct Values>();
  for (unsigned i = 0; i < 31; ++i) values[i] = 0.0F;
  const float* at = values;
  out[0] = at[index];
}

std::vector<float> read_past_end(void (*kernel)(float*, const float*, std::int64_t),
                                 std::int64_t offset) {
  return run_in_all_orders([&] {
    const Buffer<float> in(std::vector<float>(101, 1.0F));
    const Buffer<float> out(4);
    launch(1, 1, 0, StreamRef{}, kernel, out.data(), in.data(), offset);
    return out.to_vector();
  });
}

}  // namespace

TEST_CASE("bugs: reads out of bounds") {
  CHECK(read_past_end(read_at, 100)[0] == 1.0F);
  CHECK_THROWS_AS(read_past_end(read_at, 101), KernelError);
  CHECK_THROWS_AS(read_past_end(read_at, -1), KernelError);
  CHECK_THROWS_WITH_AS(
      read_past_end(read_at, 104),
      doctest::Contains("touched memory 12 bytes past the end of a buffer of 404 bytes"),
      KernelError);
  CHECK_THROWS_WITH_AS(read_past_end(read_at, -1000),
                       doctest::Contains("4000 bytes before a buffer of 404 bytes"), KernelError);
  CHECK(read_past_end(copy16, 96)[3] == 1.0F);
  CHECK_THROWS_WITH_AS(read_past_end(copy16, 100), doctest::Contains("load16 for 16 bytes"),
                       KernelError);
  CHECK(read_past_end(copy8, 98)[1] == 1.0F);
  CHECK_THROWS_WITH_AS(read_past_end(copy8, 100), doctest::Contains("load8 for 8 bytes"),
                       KernelError);
  CHECK_THROWS_WITH_AS(read_past_end(copy8, 97), doctest::Contains("not a multiple of 8"),
                       KernelError);
}

TEST_CASE("bugs: writes out of bounds") {
  CHECK(results(1, 1, 5, write_at, 4)[4] == 1.0F);
  CHECK_THROWS_WITH_AS(results(1, 1, 5, write_at, 5),
                       doctest::Contains("wrote 0 bytes past the end of a buffer of 20 bytes"),
                       KernelError);
  CHECK_THROWS_WITH_AS(results(1, 1, 5, write_at, -1), doctest::Contains("before a buffer"),
                       KernelError);
  CHECK_THROWS_AS(results(1, 1, 5, write_at, 8), KernelError);
  CHECK(results(1, 1, 5, store16_at, 0).size() == 5);
  CHECK_THROWS_WITH_AS(results(1, 1, 5, store16_at, 4), doctest::Contains("store16 for 16 bytes"),
                       KernelError);
}

TEST_CASE("bugs: shared memory out of bounds") {
  CHECK(results(1, 1, 1, write_shared, 30U)[0] == 0.0F);
  CHECK_THROWS_WITH_AS(results(1, 1, 1, write_shared, 31U),
                       doctest::Contains("past the end of an array in shared memory"), KernelError);
  CHECK(results(1, 1, 1, read_shared, 30U)[0] == 0.0F);
  CHECK_THROWS_AS(results(1, 1, 1, read_shared, 31U), KernelError);
}

TEST_CASE("bugs: a misaligned access of 16 bytes") {
  CHECK_THROWS_WITH_AS(read_past_end(copy16, 1), doctest::Contains("not a multiple of 16"),
                       KernelError);
  CHECK_THROWS_WITH_AS(results(1, 1, 8, store16_at, 2), doctest::Contains("not a multiple of 16"),
                       KernelError);
}

TEST_CASE("bugs: an address where nothing is") {
  auto* nowhere = reinterpret_cast<const float*>(std::uintptr_t{4096});
  CHECK_THROWS_WITH_AS(results(1, 32, 32, read_at, nowhere, 0),
                       doctest::Contains("touched address 0x1000, where nothing is"), KernelError);
}

namespace {

__global__ void shuffle_after_exit(float* out, unsigned mask) {
  if (threadIdx.x == 5) return;
  out[threadIdx.x] = __shfl_down_sync(mask, 1.0F, 1);
}

__global__ void shuffle(float* out, unsigned mask, int source) {
  out[threadIdx.x] = __shfl_sync(mask, 1.0F, source);
}

__global__ void own_masks(float* out, unsigned upper) {
  out[threadIdx.x] = __shfl_xor_sync(threadIdx.x < 16 ? kAll : upper, 1.0F, 1);
}

__global__ void two_sites(float* out) {
  if (threadIdx.x % 2 == 0)
    out[threadIdx.x] = __shfl_xor_sync(kAll, 1.0F, 1);
  else
    out[threadIdx.x] = __shfl_xor_sync(kAll, 2.0F, 1);
}

}  // namespace

TEST_CASE("bugs: masks of warps") {
  CHECK_THROWS_WITH_AS(results(1, 32, 32, shuffle_after_exit, kAll),
                       doctest::Contains("for lane 5, which has exited"), KernelError);
  CHECK_THROWS_WITH_AS(results(1, 20, 20, shuffle, kAll, 0),
                       doctest::Contains("absent: the warp has 20 lanes"), KernelError);
  CHECK_THROWS_WITH_AS(results(1, 32, 32, shuffle, 0xffffU, 0),
                       doctest::Contains("is not in its mask"), KernelError);
  CHECK_THROWS_WITH_AS(results(1, 16, 16, shuffle, 0xffffU, 20),
                       doctest::Contains("reads a lane that is not in its mask"), KernelError);
  CHECK_THROWS_WITH_AS(results(1, 32, 32, own_masks, 0xffff8000U),
                       doctest::Contains("waits in __shfl_xor_sync"), KernelError);
  CHECK_THROWS_WITH_AS(results(1, 32, 32, own_masks, 0xffff0000U),
                       doctest::Contains("for lane 16, which has exited"), KernelError);
  CHECK_THROWS_WITH_AS(results(1, 32, 32, two_sites), doctest::Contains("which waits in"),
                       KernelError);
}

namespace {

__global__ void uninitialised(float* out) { out[0] = shared<float, struct Value>(); }

__global__ void no_dynamic(float* out) { out[0] = dynamic_shared<float>()[0]; }

__global__ void throwing(float* out) {
  __syncthreads();
  if (threadIdx.x == 40) throw std::runtime_error("thrown by a lane");
  __syncthreads();
  out[threadIdx.x] = 1.0F;
}

}  // namespace

TEST_CASE("bugs: shared memory that nobody wrote or asked for") {
  CHECK(std::isnan(results(2, 1, 1, uninitialised)[0]));
  CHECK_THROWS_WITH_AS(results(1, 1, 1, no_dynamic), doctest::Contains("the launch gave none"),
                       KernelError);
}

TEST_CASE("bugs: an exception crosses from a lane to the launch, and the next launch works") {
  for (int i = 0; i < 3; ++i) {
    CHECK_THROWS_WITH_AS(results(1, 64, 64, throwing), "thrown by a lane", std::runtime_error);
    CHECK(results(1, 64, 64, reverse, true)[5] == 58.0F);
  }
}

TEST_CASE("bugs: the message names line, thread and order") {
  try {
    results(1, 64, 64, early_exit, 63U);
    FAIL("not caught");
  } catch (const KernelError& error) {
    const std::string message = error.what();
    CAPTURE(message);
    CHECK(message.find("thread (0, 0, 0) of block (0, 0, 0), in __syncthreads at ") == 0);
    CHECK(message.find("test_bugs.cpp:") != std::string::npos);
    CHECK(message.find("order ascending)") != std::string::npos);
  }
}

}  // namespace emulated
