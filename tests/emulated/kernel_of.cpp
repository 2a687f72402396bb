// Here kernels of our own are tested.
#include "emulated/device_call.hpp"

namespace ashlar::test {

const cuda::Kernel* kernel_of(std::string_view op) { return cuda::find_kernel(op); }

double tolerance_of(std::string_view, DType, DType output) {
  return output == DType::bf16 ? 1e-2 : 1e-5;
}

bool depends_on_alignment(std::string_view) { return false; }

}  // namespace ashlar::test
