// Ranks that are threads of one process and share a GPU: they read each other's memory on the
// device, ordered by events between their streams; sums are made in rank order by one kernel. The
// host threads meet at each call, to learn what to wait for; none waits for the device.
#pragma once

#include <memory>

#include "ashlar/buffer.hpp"
#include "comm/flight_recorder.hpp"
#include "comm/forwarding.hpp"
#include "comm/pass.hpp"
#include "comm/reduction_scratch.hpp"
#include "cuda/meeting.hpp"

namespace ashlar::cuda {

/// What a rank's communicators stand on. In tests the device is the CPU.
struct SharedGpuPlace {
  std::shared_ptr<MemoryResource> memory;  // of the device
  StreamRef stream;                        // collectives run on it, of split communicators too
  std::shared_ptr<const void> owner;       // of the stream
  std::int64_t scratch_bytes = detail::ReductionScratch::kMost;
};

class SharedGpuCommunicator final : public detail::ForwardingCommunicator {
 public:
  /// Collective. @param inner of the same ranks, threads of this process, for buffers of the host;
  /// outlives this.
  SharedGpuCommunicator(Communicator& inner, SharedGpuPlace place);
  /// Waits for what is in flight; calls of ranks that go on fail.
  ~SharedGpuCommunicator() override;

  Work all_gather(std::span<const Transfer> flats, std::string_view label,
                  StreamRef stream) override;
  Work reduce_scatter(std::span<const Transfer> flats, const ReduceOptions& options,
                      std::string_view label, StreamRef stream) override;
  Work all_reduce(TensorView values, std::string_view label, StreamRef stream) override;
  Work broadcast(TensorView values, int root, std::string_view label, StreamRef stream) override;
  Work all_to_all(TensorView send, TensorView recv, std::string_view label,
                  StreamRef stream) override;
  /// @throws InvalidArgument on streams of the GPU: there are no messages between two.
  Work send(TensorView values, int destination, std::string_view label, StreamRef stream) override;
  Work recv(TensorView values, int source, std::string_view label, StreamRef stream) override;
  std::unique_ptr<Communicator> split(int color, int key) override;

  MemoryResource& window() override { return *place_.memory; }
  /// One rank meets nobody on the host.
  bool records() const override { return size() == 1; }
  SentBytes sent_bytes() const override;
  std::vector<std::string> recent() const override;
  void set_timeout(std::chrono::milliseconds timeout) override;
  void abort(std::string_view reason) noexcept override;

 private:
  SharedGpuCommunicator(std::unique_ptr<Communicator> inner, SharedGpuPlace place);

  bool passes(StreamRef stream) const {
    return stream.is_inline() || stream.device() != place_.stream.device();
  }
  Work start(detail::Operation& operation, detail::Kind kind, std::string_view label, int peer,
             StreamRef stream);
  /// All of a collective, to its end on every rank. @return that end.
  Event run(const detail::Operation& operation, StreamRef stream);
  void meet(const detail::Operation* operation, const Event& event, bool leaves);
  void require_same_calls() const;
  /// Elements of `source`'s send, from `first` on.
  const std::byte* send_of(const detail::Pass& pass, int source, std::int64_t first) const;
  void copy(const detail::Pass& pass);
  void add(const detail::Pass& pass, const ReduceOptions& options);
  void count(const detail::Pass& pass);

  std::unique_ptr<Communicator> owned_;
  SharedGpuPlace place_;
  std::shared_ptr<Meeting> meeting_;
  std::vector<const detail::Operation*> calls_;  // by rank, of the collective that is under way
  Buffer parts_, partials_;
  detail::FlightRecorder recorder_;
  SentBytes sent_{};
  std::int64_t collectives_ = 0;
  std::chrono::milliseconds timeout_{60'000};
};

}  // namespace ashlar::cuda
