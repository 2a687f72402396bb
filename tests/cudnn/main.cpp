// Where cuDNN is not installed the tests end with 77, which CTest shows as skipped.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <cstdio>

#include "ashlar/error.hpp"
#include "cuda/cudnn_library.hpp"

int main(int argc, char** argv) {
  try {
    ashlar::cuda::CudnnLibrary::installed();
  } catch (const ashlar::CudaError& error) {
    std::printf("skipped: %s\n", error.what());
    return 77;
  }
  return doctest::Context(argc, argv).run();
}
