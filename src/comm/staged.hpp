// Buffers of one memory over a communicator that moves bytes of another: they are copied there and
// back in the order of streams.
#pragma once

#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "ashlar/buffer.hpp"
#include "ashlar/caching_resource.hpp"
#include "comm/forwarding.hpp"

namespace ashlar::detail {

/// For a resource that outlives all who use it.
inline std::shared_ptr<MemoryResource> borrowed(MemoryResource& resource) {
  return {std::shared_ptr<void>(), &resource};
}
/// A device's memory behind a cache. @throws CudaError when the device does not work here.
std::shared_ptr<CachingResource> device_cache(Device device);

/// What a staged communicator and those split from it share. Blocks are kept for the next
/// collective.
class Staging {
 public:
  /// @param home calls on streams of this device are passed on as they are
  /// @param memory what the inner communicator reaches
  /// @param window what callers are given for buffers
  /// @param copies a stream whose device reaches both memories
  Staging(Device home, std::shared_ptr<MemoryResource> memory,
          std::shared_ptr<MemoryResource> window, Stream copies)
      : home_(home),
        memory_(std::move(memory)),
        window_(std::move(window)),
        copies_(std::move(copies)) {}

  Device home() const { return home_; }
  MemoryResource& window() const { return *window_; }
  StreamRef copies() const { return copies_; }
  /// At least `bytes`, the smallest block that is free.
  Buffer take(std::int64_t bytes);
  void give_back(Buffer block);

 private:
  Device home_;
  std::shared_ptr<MemoryResource> memory_;
  std::shared_ptr<MemoryResource> window_;
  Stream copies_;
  std::mutex mutex_;
  std::vector<Buffer> spare_;
};

class StagedWork;

class StagedCommunicator final : public ForwardingCommunicator {
 public:
  /// @param inner outlives this.
  StagedCommunicator(Communicator& inner, std::shared_ptr<Staging> staging)
      : ForwardingCommunicator(inner), staging_(std::move(staging)) {}
  StagedCommunicator(std::unique_ptr<Communicator> inner, std::shared_ptr<Staging> staging)
      : ForwardingCommunicator(*inner), owned_(std::move(inner)), staging_(std::move(staging)) {}
  /// Waits for what is in flight.
  ~StagedCommunicator() override;

  Work all_gather(std::span<const Transfer> flats, std::string_view label,
                  StreamRef stream) override;
  Work reduce_scatter(std::span<const Transfer> flats, const ReduceOptions& options,
                      std::string_view label, StreamRef stream) override;
  Work all_reduce(TensorView values, std::string_view label, StreamRef stream) override;
  Work broadcast(TensorView values, int root, std::string_view label, StreamRef stream) override;
  Work all_to_all(TensorView send, TensorView recv, std::string_view label,
                  StreamRef stream) override;
  Work send(TensorView values, int destination, std::string_view label, StreamRef stream) override;
  Work recv(TensorView values, int source, std::string_view label, StreamRef stream) override;
  std::unique_ptr<Communicator> split(int color, int key) override;
  MemoryResource& window() override { return staging_->window(); }
  /// Whether sums of a device's values are made in host memory.
  bool sums_on_host() const { return staging_->home().type == DeviceType::cpu; }

 private:
  bool passes(StreamRef stream) const { return stream.device() == staging_->home(); }
  std::shared_ptr<StagedWork> prepare();
  /// Copies in, runs `call()`, which works on the staged views, and keeps the work until it is
  /// done.
  template <typename Call>
  Work start(const std::shared_ptr<StagedWork>& work, StreamRef stream, const Call& call);

  std::unique_ptr<Communicator> owned_;
  std::shared_ptr<Staging> staging_;
  std::vector<std::shared_ptr<StagedWork>> in_flight_;
};

}  // namespace ashlar::detail
