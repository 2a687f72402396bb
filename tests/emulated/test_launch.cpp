// Launches: limits, streams, arguments.
#include <doctest/doctest.h>

#include "emulated/kernels.hpp"
#include "emulator/buffer.hpp"
#include "emulator/order.hpp"

namespace emulated {
using ashlar::InvalidArgument;
using ashlar::Stream;
using ashlar::StreamRef;
using ashlar::cuda::launch;
using emulator::Buffer;
using emulator::KernelError;

namespace {

__global__ void nothing() {}

__global__ void add(std::int64_t* to, std::int64_t value) { *to = 10 * *to + value; }

}  // namespace

TEST_CASE("launch: limits") {
  struct Case {
    dim3 grid, block;
    std::size_t shared_bytes;
    const char* refusal;  // null: runs
  };
  const Case cases[] = {
      {1, 1024, 0, nullptr},
      {1, dim3(2, 2, 64), 0, nullptr},
      {1, 1, 227 << 10, nullptr},
      {0, 32, 0, "is empty"},
      {dim3(1, 0), 32, 0, "is empty"},
      {1, dim3(32, 0), 0, "is empty"},
      {1, 1025, 0, "more than 1024 threads"},
      {1, dim3(32, 33), 0, "more than 1024 threads"},
      {1, dim3(1, 1, 65), 0, "64 in z"},
      {1, dim3(65536, 65536), 0, "more than 1024 threads"},
      {0x80000000U, 1, 0, "put the long extent in x"},
      {dim3(1, 65536), 1, 0, "65535 blocks in y or z"},
      {dim3(1, 1, 65536), 1, 0, "65535 blocks in y or z"},
      {1, 1, (227 << 10) + 1, "227 KiB"},
  };
  for (const Case& c : cases) {
    CAPTURE(c.grid.x);
    CAPTURE(c.block.x);
    CAPTURE(c.shared_bytes);
    if (c.refusal == nullptr)
      CHECK_NOTHROW(launch(c.grid, c.block, c.shared_bytes, StreamRef{}, nothing));
    else
      CHECK_THROWS_WITH_AS(launch(c.grid, c.block, c.shared_bytes, StreamRef{}, nothing),
                           doctest::Contains(c.refusal), InvalidArgument);
  }
}

TEST_CASE("launch: a refusal names its line") {
  CHECK_THROWS_WITH_AS(launch(0, 1, 0, StreamRef{}, nothing), doctest::Contains("test_launch.cpp:"),
                       InvalidArgument);
}

TEST_CASE("launch: kernels of a stream run in order, with the arguments as they were") {
  const Buffer<std::int64_t> number(std::vector<std::int64_t>{0});
  const Stream stream;
  for (int i = 1; i <= 5; ++i) launch(1, 1, 0, stream, add, number.data(), i);
  StreamRef(stream).synchronize();
  CHECK(number.data()[0] == 12345);
}

TEST_CASE("launch: an error of a kernel on a stream reaches synchronize") {
  const Stream stream;
  launch(1, 1, 0, stream, add, reinterpret_cast<std::int64_t*>(std::uintptr_t{4096}), 1);
  CHECK_THROWS_AS(StreamRef(stream).synchronize(), KernelError);
}

TEST_CASE("launch: streams on threads of their own run blocks at the same time") {
  constexpr int kStreams = 3;
  const std::vector<float> rows(64, 0.5F);
  const Buffer<float> in(rows);
  const Buffer<float> sums(kStreams);
  const std::vector<Stream> streams(kStreams);
  for (int repeat = 0; repeat < 20; ++repeat)
    for (std::size_t i = 0; i < kStreams; ++i)
      launch(1, 64, 0, streams[i], sum_rows, sums.data() + i, in.data(), 64);
  for (const Stream& stream : streams) StreamRef(stream).synchronize();
  CHECK(sums.to_vector() == std::vector<float>(kStreams, 32.0F));
}

}  // namespace emulated
