// The fake libcublasLt.so.13, and what goes wrong in it while a test wants it to.
#pragma once

#include <string>

#include "ashlar/error.hpp"
#include "cuda/products.hpp"
#include "support/fake_cublaslt.hpp"

namespace ashlar::test {

/// Where the calling thread's products run; null: on a library that all such threads share.
inline thread_local const cuda::CublasLt* own_library = nullptr;

/// The faults end with this object.
class Faults {
 public:
  Faults() = default;
  ~Faults() {
    FakeCublasLt& fake = *fake_cublaslt();
    fake.create_result = fake.matmul_result = fake.gradient_result = 0;
    fake.no_algorithm = false;
    fake.workspace = -1;
    fake.first_way = 0;
    fake.candidates = 1;
  }
  Faults(const Faults&) = delete;
  Faults& operator=(const Faults&) = delete;
  FakeCublasLt* operator->() const { return fake_cublaslt(); }
};

/// What `body` was refused with; empty when it was not.
template <class Body>
std::string cuda_error_of(const Body& body) {
  try {
    body();
  } catch (const CudaError& error) {
    return error.what();
  }
  return {};
}

}  // namespace ashlar::test
