// One call of a kernel on the emulator or on a GPU, whichever backend the program links: operands
// in memory of their own, outputs and workspace NaN.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "ashlar/op.hpp"
#include "cuda/kernels.hpp"

namespace ashlar::test {

/// What differs: emulated/emulator_backend.cpp and cuda/cuda_backend.cpp.
namespace backend {

/// Device memory aligned to 16, all bytes 0xff (NaN in every float format).
std::shared_ptr<std::byte> allocate(std::size_t bytes);
/// Between host and device, after all work of stream(); done on return.
void copy(void* to, const void* from, std::size_t bytes);
/// Where kernels run.
StreamRef stream();
/// Runs several times. @throws Error where two results differ in a bit.
std::vector<std::byte> repeat(const std::function<std::vector<std::byte>()>& run);

}  // namespace backend

/// A call's operands, on the host. `shared`: (output, input) pairs that are the same memory.
struct DeviceCall {
  void (*run)(const KernelArguments&) = nullptr;
  RunContext context = {};
  Attributes attributes = {};
  std::vector<TensorView> inputs = {};
  std::vector<TensorType> outputs = {};
  std::int64_t workspace = 0;
  std::vector<std::pair<int, int>> shared = {};
  bool misaligned = false;  // every operand begins one element behind an aligned address
};

/// The kernel under test of an op; null: the CPU's serves. Each test program has its own.
const cuda::Kernel* kernel_of(std::string_view op);
/// The largest relative error of an output, for inputs of `operands`; likewise.
double tolerance_of(std::string_view op, DType operands, DType output);
/// True where the bits may depend on whether operands begin at aligned addresses; likewise.
bool depends_on_alignment(std::string_view op);

/// Bytes of the outputs, one behind the other. The context's stream is the backend's; its scalars
/// `on_device` are on the host here.
std::vector<std::byte> run_once(const DeviceCall& call);
/// The same in every order of threads, or repeatedly on a GPU. @throws Error where two differ.
std::vector<std::byte> run_on_device(const DeviceCall& call);

/// `call` for a node's kernel, without operands.
DeviceCall call_of(const cuda::Kernel& kernel, const OpDef& op, const Attributes& attributes,
                   std::vector<TensorView> inputs, std::vector<TensorType> outputs);

/// |a - b| / |b| of n elements of `dtype`; 0 for equal bytes, infinite where just one is NaN.
/// Where one side is zero everywhere the other may hold what rounding leaves of operands about 1,
/// up to 1e-6.
double relative_error(const std::byte* a, const std::byte* b, std::int64_t n, DType dtype);

}  // namespace ashlar::test
