// Attention by cuDNN against the CPU's kernels, and the same bits in every run.
#include <doctest/doctest.h>

#include <cstdio>
#include <cstdlib>

#include "cuda/check.h"
#include "support/attention_pair.hpp"

namespace ashlar::test {
namespace {

int compute_capability() {
  int major = 0, minor = 0;
  cuda::check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0));
  cuda::check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, 0));
  return 10 * major + minor;
}

/// Softmax sums that end within 16 bytes, behind which cuDNN's frontend puts an engine's workspace.
/// Last: an engine that minds ends all that CUDA does in this process.
constexpr Extents kNotInPacks{3, 77, 6, 3, 64};

/// Ends the program as skipped where cuDNN does not serve this GPU.
void need_cudnn() {
  const int sm = compute_capability();
  if (cuda::find_attention("causal_attention", sm) != nullptr &&
      cuda::attention_library(backend::stream()) != nullptr)
    return;
  std::printf("skipped: no attention by cuDNN for sm_%d in this program or on this machine\n", sm);
  std::exit(77);
}

void check_row(Pair& pair, bool backward, bool deterministic) {
  const std::string op = pair.op(backward);
  CAPTURE(op);
  const cuda::Kernel& kernel = *cuda::find_attention(op, compute_capability(), deterministic);
  const std::vector<std::byte> expected = pair.expected(backward);
  const DeviceCall call = pair.call(kernel, backward);
  const std::vector<std::byte> actual = deterministic ? run_on_device(call) : run_once(call);
  std::size_t at = 0;
  for (const TensorType& type : pair.types(backward)) {
    const double error =
        relative_error(actual.data() + at, expected.data() + at, type.shape.elements(), type.dtype);
    CHECK_MESSAGE(error <= 1e-2, "relative error ", error, " of output ", to_string(type.shape));
    at += static_cast<std::size_t>(type.shape.elements() * size_of(type.dtype));
  }
}

}  // namespace

TEST_CASE("cuda: attention by cuDNN is the CPU's within 1e-2, in the same bits in every run") {
  need_cudnn();
  for (const Extents& e :
       {Extents{4, 1024, 12, 12, 64}, Extents{3, 65, 4, 4, 64}, Extents{2, 300, 2, 2, 128},
        Extents{8, 1024, 12, 12, 32}, Extents{1, 2048, 18, 18, 64}, Extents{1, 6, 2, 2, 8}}) {
    CAPTURE(e.positions);
    Pair pair(e, false);
    for (const bool backward : {false, true}) check_row(pair, backward, true);
    check_row(pair, true, false);
  }
}

TEST_CASE("cuda: grouped attention by cuDNN, likewise") {
  need_cudnn();
  for (const Extents& e : {Extents{2, 512, 8, 2, 128}, Extents{2, 200, 4, 4, 64},
                           Extents{1, 2048, 24, 6, 64}, kNotInPacks}) {
    CAPTURE(e.positions);
    Pair pair(e, true);
    for (const bool backward : {false, true}) check_row(pair, backward, true);
    check_row(pair, true, false);
  }
}

}  // namespace ashlar::test
