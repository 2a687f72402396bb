// Ranks of NcclCommunicator without a GPU: threads over the fake library, streams of the CPU.
#pragma once

#include <dlfcn.h>

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "ashlar/communicator.hpp"
#include "ashlar/error.hpp"
#include "comm/staged.hpp"
#include "cuda/nccl_communicator.hpp"
#include "support/fake_nccl.hpp"

namespace ashlar::test {

inline const cuda::NcclLibrary& fake_library() {
  static const cuda::NcclLibrary library(ASHLAR_FAKE_NCCL);
  return library;
}

/// The faults of the fake library; they end with this object.
class Faults {
 public:
  Faults() : faults_(find()) {}
  ~Faults() {
    faults_->delay_us = faults_->looks = faults_->connect_result = 0;
    faults_->cut_off = faults_->refused = -1;
  }
  Faults(const Faults&) = delete;
  Faults& operator=(const Faults&) = delete;
  FakeNccl* operator->() const { return faults_; }

 private:
  static FakeNccl* find() {
    void* library = dlopen(ASHLAR_FAKE_NCCL, RTLD_NOW);
    if (library == nullptr) throw Error(dlerror());
    return reinterpret_cast<decltype(&fake_nccl)>(dlsym(library, "fake_nccl"))();
  }
  FakeNccl* faults_;
};

inline cuda::NcclPlace fake_place(std::int64_t scratch_bytes = 32 << 20,
                                  std::chrono::milliseconds timeout = std::chrono::seconds(60)) {
  return {.library = fake_library(),
          .device = Device{},
          .memory = detail::device_cache(Device{}),
          .native_stream = [](StreamRef stream) { return const_cast<void*>(stream.id()); },
          .scratch_bytes = scratch_bytes,
          .timeout = timeout};
}

/// A communicator over NCCL, its identifiers brought by `threads`.
inline std::unique_ptr<cuda::NcclCommunicator> connect(Communicator& threads,
                                                       const cuda::NcclPlace& place) {
  return std::make_unique<cuda::NcclCommunicator>(
      place, std::make_unique<cuda::CommunicatorIds>(threads.split(0, threads.rank())),
      threads.rank(), threads.size());
}

}  // namespace ashlar::test
