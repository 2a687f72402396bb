// Here products are tested, on the CPU: the fake library takes the place of a device's.
#include "emulated/device_call.hpp"
#include "emulated_products/fixture.hpp"
#include "ops/cuda_backend.hpp"

namespace ashlar::test {

const cuda::Kernel* kernel_of(std::string_view op) { return cuda::find_product(op); }

/// The head of bf16 operands has logits in bf16, the CPU's in f32: its loss is one of bf16. So are
/// the sums of a gradient that was rounded to bf16.
double tolerance_of(std::string_view op, DType operands, DType output) {
  const bool inner = op.starts_with("linear_cross_entropy") || op == "linear_gelu_backward";
  return (inner ? operands : output) == DType::bf16 ? 1e-2 : 1e-5;
}

/// The library's epilogue reads the product before it is rounded, and takes aligned operands alone.
bool depends_on_alignment(std::string_view op) { return op == "linear_gelu_backward"; }

}  // namespace ashlar::test

namespace ashlar::cuda {

Algorithms& process_algorithms() {
  static Algorithms algorithms;
  return algorithms;
}

ProductPlace product_place(StreamRef) {
  static const CublasLt library(CublasLtLibrary::installed(), 90, process_algorithms());
  return {test::own_library != nullptr ? *test::own_library : library, nullptr};
}

}  // namespace ashlar::cuda

int ashlar::compute_capability(Device) { return 90; }
