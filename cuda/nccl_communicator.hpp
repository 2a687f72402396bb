// The Communicator over NCCL: checks calls, puts them on a stream of its own, records them, and
// turns whatever goes wrong into one failure of the whole communicator.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cuda/nccl_ids.hpp"
#include "cuda/nccl_messages.hpp"
#include "cuda/nccl_place.hpp"
#include "cuda/nccl_sums.hpp"
#include "cuda/nccl_work.hpp"

namespace ashlar::cuda {

class NcclCommunicator final : public Communicator {
 public:
  /// Collective. @throws CommunicationError when the ranks do not meet.
  NcclCommunicator(const NcclPlace& place, std::unique_ptr<NcclIds> ids, int rank, int size);
  /// Waits for what is in flight, then leaves the group.
  ~NcclCommunicator() override;

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  std::string_view name() const override { return "nccl"; }
  bool same_node(int rank) const override { return hosts_.at(rank) == hosts_[rank_]; }

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
  void barrier(std::string_view label) override;
  /// @throws InvalidArgument for a negative color, which NCCL does not take.
  std::unique_ptr<Communicator> split(int color, int key) override;

  MemoryResource& window() override { return *place_.memory; }
  bool records() const override { return true; }
  SentBytes sent_bytes() const override { return sent_; }
  std::vector<std::string> recent() const override;
  void set_timeout(std::chrono::milliseconds timeout) override;
  void abort(std::string_view reason) noexcept override;

 private:
  class RecordedWork;

  NcclCommunicator(const NcclPlace& place, std::unique_ptr<NcclIds> ids,
                   std::shared_ptr<NcclGroup> group);
  NcclCommunicator(const NcclPlace& place, std::unique_ptr<NcclIds> ids,
                   std::shared_ptr<NcclHealth> health, std::shared_ptr<NcclGroup> group, int rank,
                   int size);
  /// Every rank's host.
  void learn_hosts();

  Work start(detail::Operation& operation, detail::Kind kind, std::string_view label, int peer,
             StreamRef stream);
  Work record(detail::Operation& operation, detail::Kind kind, std::string_view label, int peer,
              StreamRef stream);
  /// A recorded collective runs again. @param sent by it
  std::shared_ptr<NcclWork> replay(detail::Header header, const SentBytes& sent,
                                   const Event& before, const Event& after);
  void require_health() const;
  void issue(const detail::Operation& operation);
  void copy(const NcclLibrary& nccl, ncclComm_t comm, const detail::Pass& pass);
  void all_to_all(const NcclLibrary& nccl, ncclComm_t comm, const detail::Pass& pass);
  void count(detail::Kind kind, std::int64_t bytes) {
    sent_[static_cast<std::size_t>(traffic_of(kind))] += bytes;
  }

  NcclPlace place_;
  std::unique_ptr<NcclIds> ids_;
  std::shared_ptr<NcclHealth> health_;
  std::shared_ptr<NcclGroup> group_;
  int rank_;
  int size_;
  std::unique_ptr<detail::StreamState> own_stream_;
  StreamRef stream_;
  std::optional<NcclSums> sums_;
  NcclMessages messages_;
  std::vector<std::uint64_t> hosts_;
  SentBytes sent_{};
  std::int64_t collectives_ = 0;
  std::int64_t posted_ = 0;
  std::vector<std::shared_ptr<NcclWork>> in_flight_;
};

}  // namespace ashlar::cuda
