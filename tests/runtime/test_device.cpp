// Devices by name, and what is said where there is no CUDA.
#include <doctest/doctest.h>

#include <array>
#include <string>

#include "ashlar/device.hpp"
#include "ashlar/device_memory.hpp"
#include "ashlar/error.hpp"

namespace ashlar {

TEST_CASE("device: names are read and written") {
  CHECK(device_count(DeviceType::cpu) == 1);
  CHECK(parse_device("cpu") == Device{});
  CHECK(to_string(Device{}) == "cpu");
  CHECK(to_string({DeviceType::cuda, 3}) == "cuda:3");
  for (const char* name : {"", "gpu", "cuda:", "cuda:-1", "cuda:1x", "cuda:99999999999"})
    CHECK_THROWS_WITH_AS(parse_device(name), doctest::Contains("there is no device"),
                         InvalidArgument);
  const int count = device_count(DeviceType::cuda);
  for (int i = 0; i < count; ++i)
    CHECK(parse_device("cuda:" + std::to_string(i)) == Device{DeviceType::cuda, i});
  CHECK_THROWS_AS(parse_device("cuda:" + std::to_string(count)), InvalidArgument);
}

TEST_CASE("device: without a CUDA device everything says so, and the CPU works on") {
  CHECK(Stream().operator StreamRef().device() == Device{});
  CHECK(device_pages({})->page_bytes() >= 4096);
  std::array<int, 3> from{1, 2, 3}, to{};
  copy_async(to.data(), from.data(), sizeof from, {});
  CHECK(to == from);
  if (device_count(DeviceType::cuda) > 0) return;
  const Device device{DeviceType::cuda, 0};
  CHECK_THROWS_WITH_AS(parse_device("cuda"), doctest::Contains("no CUDA device was found: "),
                       InvalidArgument);
  CHECK_THROWS_AS(Stream{device}, CudaError);
  CHECK_THROWS_AS(device_pages(device), CudaError);
  CHECK_THROWS_AS(pinned_memory().allocate(64, Category::input), CudaError);
  CHECK_THROWS_AS(device_bytes(device), CudaError);
}

}  // namespace ashlar
