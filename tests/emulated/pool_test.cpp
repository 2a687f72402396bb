// What random operands do not show of pooling.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "emulated/device_call.hpp"

namespace ashlar::test {

TEST_CASE("kernels: max pooling hides no NaN, and of equal elements takes the first") {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  std::vector<float> x{1, nan, 3, 4,   7, 7,  //
                       5, 6,   7, nan, 7, 7};
  DeviceCall call{.run = cuda::max_pool2d,
                  .attributes = {{"kernel", std::int64_t{2}}, {"stride", std::int64_t{2}}}};
  call.inputs = {TensorView(x.data(), DType::f32, {1, 2, 6, 1})};
  call.outputs = {{DType::f32, {1, 1, 3, 1}}, {DType::u8, {1, 1, 3, 1}}};
  const std::vector<std::byte> bytes = run_on_device(call);
  float y[3];
  std::memcpy(y, bytes.data(), sizeof y);
  CHECK(std::isnan(y[0]));
  CHECK(std::isnan(y[1]));
  CHECK(y[2] == 7);
  const auto which = [&](std::size_t i) { return std::to_integer<int>(bytes[sizeof y + i]); };
  CHECK(which(0) == 1);
  CHECK(which(1) == 3);
  CHECK(which(2) == 0);
}

}  // namespace ashlar::test
