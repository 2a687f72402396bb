// How NCCL's identifiers get from the rank that makes them to those that connect with them.
#pragma once

#include <nccl.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>
#include <string_view>

#include "ashlar/device_communicator.hpp"

namespace ashlar::cuda {

/// Calls may come from several threads, one at a time for each pair of ranks and direction.
class NcclIds {
 public:
  virtual ~NcclIds() = default;
  /// Returns when `destination` has taken it. @throws CommunicationError when it does not in time.
  virtual void give(int destination, const ncclUniqueId& id) = 0;
  virtual ncclUniqueId take(int source) = 0;
  /// Collective: for the ranks of equal `color`, this one being `rank` of them.
  virtual std::unique_ptr<NcclIds> split(int color, int key, int rank) = 0;
  virtual void set_timeout(std::chrono::milliseconds timeout) = 0;
  /// Ends what waits, with an error.
  virtual void abort(std::string_view reason) noexcept = 0;
};

/// By messages over a communicator of its own, split from one of host memory.
class CommunicatorIds final : public NcclIds {
 public:
  explicit CommunicatorIds(std::unique_ptr<Communicator> ranks) : ranks_(std::move(ranks)) {}

  void give(int destination, const ncclUniqueId& id) override;
  ncclUniqueId take(int source) override;
  std::unique_ptr<NcclIds> split(int color, int key, int rank) override;
  void set_timeout(std::chrono::milliseconds timeout) override { ranks_->set_timeout(timeout); }
  void abort(std::string_view reason) noexcept override { ranks_->abort(reason); }

 private:
  std::unique_ptr<Communicator> ranks_;
  std::mutex mutex_;  // of calls
};

/// By files: the reader asks with a number that it has just drawn, and takes the answer that
/// repeats it. So what an earlier run has left, question or answer, misleads nobody.
class FileIds final : public NcclIds {
 public:
  FileIds(std::filesystem::path path, int rank, std::chrono::milliseconds timeout);

  void give(int destination, const ncclUniqueId& id) override;
  ncclUniqueId take(int source) override;
  std::unique_ptr<NcclIds> split(int color, int key, int rank) override;
  void set_timeout(std::chrono::milliseconds timeout) override { timeout_ms_ = timeout.count(); }
  void abort(std::string_view) noexcept override { aborted_ = true; }

 private:
  std::filesystem::path answer(int from, int to) const;
  std::filesystem::path question(int from, int to) const;
  template <typename Ready>
  void until(const Ready& ready, int other);

  std::filesystem::path path_;
  int rank_;
  int splits_ = 0;
  std::atomic<std::int64_t> timeout_ms_;
  std::atomic<bool> aborted_ = false;
};

}  // namespace ashlar::cuda
