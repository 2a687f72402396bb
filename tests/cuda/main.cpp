// Where there is no device the GPU's tests end with 77, which CTest shows as skipped. With
// ASHLAR_KERNELS set, the file it names tells which kernels there are and which were launched.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <cstdio>
#include <cstdlib>
#include <exception>

#include "ashlar/device.hpp"
#include "cuda/launched_kernels.hpp"

int main(int argc, char** argv) {
  try {
    if (const char* path = std::getenv("ASHLAR_KERNELS")) ashlar::test::write_kernels(path);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "ASHLAR_KERNELS: %s\n", error.what());
    return 1;
  }
  if (ashlar::device_count(ashlar::DeviceType::cuda) > 0) return doctest::Context(argc, argv).run();
  std::puts("skipped: no CUDA device here");
  return 77;
}
