// A dry run: code that calls collectives itself, such as a model around ShardedOptimizer, runs here
// as one rank of many that do not exist, and leaves what the clock engine sweeps over.
#pragma once

#include <memory>

#include "ashlar/communicator.hpp"
#include "ashlar/op.hpp"
#include "simulate/workload.hpp"

namespace ashlar::simulate {

/// Rank 0 of `ranks`. Collectives complete at once; their values mean nothing: a gather repeats the
/// own part, sums are those of one rank. Starts and waits are recorded in order. Messages are
/// refused; broadcasts, all-to-all and barriers serve constructors (see clear), but have no price.
class RecordingCommunicator final : public Communicator {
 public:
  /// @throws InvalidArgument for no ranks.
  explicit RecordingCommunicator(int ranks);
  ~RecordingCommunicator() override;

  /// What a kernel of the caller costs, between the collectives around it.
  void kernel(const Cost& cost, DType dtype);
  /// Forgets what was recorded so far, such as an optimizer's construction.
  void clear();
  /// One step of what was recorded, priced. @throws InvalidArgument for a step that has no price.
  Workload workload(const Cluster& cluster, Algorithm algorithm = Algorithm::automatic) const;

  int rank() const override { return 0; }
  int size() const override { return ranks_; }
  std::string_view name() const override { return "recording"; }
  bool same_node(int rank) const override { return rank == 0; }
  Work all_gather(std::span<const Transfer> flats, std::string_view label = {},
                  StreamRef stream = {}) override;
  Work reduce_scatter(std::span<const Transfer> flats, const ReduceOptions& options = {},
                      std::string_view label = {}, StreamRef stream = {}) override;
  Work all_reduce(TensorView values, std::string_view label = {}, StreamRef stream = {}) override;
  Work broadcast(TensorView values, int root, std::string_view label = {},
                 StreamRef stream = {}) override;
  Work all_to_all(TensorView send, TensorView recv, std::string_view label = {},
                  StreamRef stream = {}) override;
  Work send(TensorView values, int destination, std::string_view label = {},
            StreamRef stream = {}) override;
  Work recv(TensorView values, int source, std::string_view label = {},
            StreamRef stream = {}) override;
  void barrier(std::string_view label = {}) override;
  /// Of the same ranks, into the same record: all are taken to give the same color. Its collectives
  /// fly beside this one's and share the links with them.
  std::unique_ptr<Communicator> split(int color, int key) override;
  MemoryResource& window() override { return host_memory(); }
  SentBytes sent_bytes() const override;
  std::vector<std::string> recent() const override { return {}; }
  void set_timeout(std::chrono::milliseconds) override {}
  void abort(std::string_view reason) noexcept override;

 private:
  struct Record;
  struct Flight;
  RecordingCommunicator(int ranks, int stream, std::shared_ptr<Record> record);
  void note_unpriced(std::string_view what, std::string_view label);
  Work note(CollectiveKind kind, std::int64_t bytes, std::string_view label);

  int ranks_, stream_;
  std::shared_ptr<Record> record_;
};

}  // namespace ashlar::simulate
