// What kernels a step on a GPU runs.
#pragma once

#include <string>

#include "ashlar/device.hpp"
#include "ashlar/op.hpp"

namespace ashlar {

struct Program;

/// Attention by cuDNN (on sm_80, sm_90 and sm_100), products by cuBLASLt and kernels of our own;
/// what has none is refused when a step is compiled. Needs no device. @param threads of the host,
/// per rank  @param sm the GPU's compute capability: 90 for 9.0
/// @param deterministic gradients of attention have the same bits in every run; off, cuDNN's
/// quickest engine may add them in any order
/// @throws CudaError where CUDA was not built in.
Backend cuda_backend(int threads, int sm, bool deterministic = true);

/// Before the first run of `programs`, which are the same on all ranks: rank 0 chooses an algorithm
/// of cuBLASLt for each of their products, by the committed table or else the library's first
/// heuristic, and all ranks use it from then on. What serves attention, a plan of cuDNN or kernels
/// of our own, is made on each rank and compared. Collective.
/// @param stream of the device that the programs run on
/// @return a hash of both for the first program, equal on all ranks; 0 where nothing was chosen
/// @throws on every rank: InvalidArgument where GPUs, versions of a library or plans differ, or a
/// rank had chosen otherwise before; CudaError where cuBLASLt is missing or has no algorithm, or a
/// library does not begin to work.
std::uint64_t agree_on_libraries(Communicator& ranks, std::span<const Program> programs,
                                 StreamRef stream);

/// What has served attention on the device so far: the engines of cuDNN's plans, as "forward
/// eng4_k24=6, backward eng5_k24=6"; "ours" where there are none.
std::string attention_engine(Device device);

/// 90 for compute capability 9.0. @throws CudaError where the device does not work.
int compute_capability(Device device);

}  // namespace ashlar
