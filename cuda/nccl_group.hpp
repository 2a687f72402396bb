// One ncclComm_t, made and used without blocking: calls that NCCL has not finished are polled until
// they are accepted, fail, or time is up.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "cuda/nccl_health.hpp"
#include "cuda/nccl_library.hpp"

namespace ashlar::cuda {

class NcclGroup {
 public:
  /// Collective; the calling thread's current device is the rank's.
  /// @throws CommunicationError when the ranks do not meet.
  static std::shared_ptr<NcclGroup> connect(const NcclLibrary& library,
                                            std::shared_ptr<NcclHealth> health,
                                            const ncclUniqueId& id, int rank, int size);
  NcclGroup(const NcclLibrary& library, std::shared_ptr<NcclHealth> health)
      : library_(library), health_(std::move(health)) {}
  /// Leaves in order if nothing has failed, else aborts; then waits for NCCL, which lets go of a
  /// communicator when no graph has its collectives any more.
  ~NcclGroup();
  NcclGroup(const NcclGroup&) = delete;
  NcclGroup& operator=(const NcclGroup&) = delete;

  int rank() const;
  int size() const;
  /// Calls `calls(library, comm)` between ncclGroupStart and ncclGroupEnd and returns when NCCL has
  /// put all of them on their streams. `calls` hands every result to accept().
  /// @throws CommunicationError, or what `calls` throws, which leaves the group unusable: some of
  /// its calls may be on their streams.
  template <typename Calls>
  void issue(const Calls& calls) {
    const std::scoped_lock lock(mutex_);
    require_alive();
    accept(library_.group_start());
    try {
      calls(library_, comm_);
    } catch (...) {
      library_.group_end();  // groups nest: left open, it would hold back all later ones
      throw;
    }
    accept(library_.group_end());
    settle();
  }
  /// @throws CommunicationError unless the call succeeded or is under way.
  void accept(ncclResult_t result) const;
  /// Collective. @throws CommunicationError.
  std::shared_ptr<NcclGroup> split(int color, int key);
  /// The group of a split, as its own communicator knows it.
  void adopt(std::shared_ptr<NcclHealth> health) { health_ = std::move(health); }

  /// What NCCL has found out since the calls; empty: nothing.
  std::string trouble() const;
  /// Ends what is on the device. Idempotent, from any thread; does not wait for graphs.
  void abort() noexcept;
  bool aborted() const { return aborted_; }

 private:
  void require_alive() const;
  void leave();
  void settle() const;
  std::string explain(ncclResult_t result) const;

  const NcclLibrary& library_;
  std::shared_ptr<NcclHealth> health_;
  mutable std::mutex mutex_;  // of comm_
  ncclComm_t comm_ = nullptr;
  std::atomic<bool> aborted_ = false;
  std::thread aborting_;
};

}  // namespace ashlar::cuda
