// A fake CUDA for a test.
#pragma once

#include <cuda_runtime_api.h>
#include <doctest/doctest.h>

#include "support/fake_cuda/fake_cuda.hpp"

namespace ashlar {

/// A CUDA as if it were new; at the end everything must have been given back, and nothing misused.
struct Fresh {
  Fresh() { *fake_cuda() = {}; }
  ~Fresh() {
    const FakeCuda& fake = *fake_cuda();
    for (const std::string& problem : fake.problems) FAIL_CHECK(problem);
    for (const std::int64_t used : fake.used) CHECK(used == 0);
    CHECK(fake.reservations == 0);
    CHECK(fake.handles == 0);
    CHECK(fake.pinned == 0);
    CHECK(fake.streams == 0);
    CHECK(fake.events == 0);
    CHECK(fake.current == 0);
    CHECK(cudaGetLastError() == cudaSuccess);
  }
};

}  // namespace ashlar
