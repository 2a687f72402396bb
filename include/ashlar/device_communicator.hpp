// Communicators for buffers in GPU memory: NCCL's, and any other over host memory.
//
// Each view of a call lies in memory of its stream's device (pinned host memory counts as any
// device's), sums of squares too: what lies in host memory is passed with a stream of the CPU, as
// the default stream is.
//
// A communicator outlives the TrainSteps that use it: what they have recorded holds its
// collectives.
//
// Windows, and memory in which sums are made, are of `memory`, a cache of the device; null: one
// that the communicator makes.
#pragma once

#include <filesystem>
#include <memory>

#include "ashlar/communicator.hpp"

namespace ashlar {

class CachingResource;

/// Ranks with a GPU each, over NCCL (libnccl.so.2, loaded at the first call). Collective over
/// `bootstrap`, which brings NCCL's identifiers to the ranks and outlives the result.
///
/// Sums have the bits of every other communicator: parts travel by NCCL, and each rank adds its
/// own in rank order. Collectives run on a stream of the communicator; Work::join orders a stream
/// after them without the host. Errors of the network, and ranks that do not arrive in time, are
/// seen by Work::wait(), which aborts the communicator and throws. NCCL does not compare what ranks
/// call: agree on the schedule first (require_agreement).
/// @throws CudaError without CUDA, NCCL or the device; CommunicationError when ranks do not meet.
std::unique_ptr<Communicator> nccl_communicator(Communicator& bootstrap, Device device,
                                                std::shared_ptr<CachingResource> memory = nullptr);

/// Where ranks that have nothing else in common find each other.
struct FileBootstrap {
  int rank = 0;
  int size = 1;
  /// On a file system that all ranks see; no other run uses it at the same time. Files of the name
  /// "<path>.<from>-<to>" are made beside it and removed. What an earlier run has left behind is
  /// never taken: an identifier is accepted only with the number that its reader has just drawn.
  std::filesystem::path path;
};
/// As above. @throws InvalidArgument for a rank outside of the size or a folder that is not there.
std::unique_ptr<Communicator> nccl_communicator(const FileBootstrap& bootstrap, Device device,
                                                std::shared_ptr<CachingResource> memory = nullptr);

/// GPU buffers over a communicator of host memory: bytes are copied to pinned memory in the order
/// of the call's stream, go through `inner`, and are copied back before the Work is done. Calls on
/// streams of the CPU are passed on as they are; window() is memory of the device.
/// @param inner outlives the result. @throws CudaError when the device does not work here.
std::unique_ptr<Communicator> staged_communicator(
    Communicator& inner, Device device, std::shared_ptr<CachingResource> memory = nullptr);

/// Ranks that are threads of this process and share one GPU: they read each other's memory there,
/// ordered by events between their streams, and no rank waits for the device. The bits are those of
/// every other communicator. Calls on streams of the CPU are passed on to `threads`; on the GPU
/// there is no send and recv. Collective over `threads`, which outlives the result.
/// @throws CudaError where the device does not work here.
std::unique_ptr<Communicator> shared_gpu_communicator(
    Communicator& threads, Device device, std::shared_ptr<CachingResource> memory = nullptr);

/// What serves ranks whose steps run on GPUs: shared_gpu_communicator for threads of one process on
/// one GPU, and for one rank; nccl_communicator where each rank has a GPU of its own; else
/// staged_communicator. Waits as long for ranks as `ranks` does now. Collective over `ranks`, which
/// outlives the result.
/// @param ranks for buffers of the host @param device this rank's
/// @throws as these do.
std::unique_ptr<Communicator> device_communicator(
    Communicator& ranks, Device device, std::shared_ptr<CachingResource> memory = nullptr);

}  // namespace ashlar
