// Where there is no device the GPU's tests end with 77, which CTest shows as skipped. With
// ASHLAR_KERNELS set, the file it names tells which kernels there are and which were launched.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>

#include "ashlar/device.hpp"
#include "cuda/launched_kernels.hpp"

namespace {

int run(int argc, char** argv) {
  if (ashlar::device_count(ashlar::DeviceType::cuda) > 0) return doctest::Context(argc, argv).run();
  std::puts("skipped: no CUDA device here");
  return 77;
}

}  // namespace

int main(int argc, char** argv) {
  const int result = run(argc, argv);
  const char* path = std::getenv("ASHLAR_KERNELS");
  if (path == nullptr) return result;
  std::ofstream file(path);
  file << ashlar::test::kernels_as_json() << std::endl;
  if (file) return result;
  std::fprintf(stderr, "ASHLAR_KERNELS: cannot write %s\n", path);
  return 1;
}
