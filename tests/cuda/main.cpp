// Where there is no device the GPU's tests end with 77, which CTest shows as skipped.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <cstdio>

#include "ashlar/device.hpp"

int main(int argc, char** argv) {
  if (ashlar::device_count(ashlar::DeviceType::cuda) == 0) {
    std::puts("skipped: no CUDA device here");
    return 77;
  }
  return doctest::Context(argc, argv).run();
}
