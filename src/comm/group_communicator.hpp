// The Communicator that users hold: checks calls, queues them for its communication thread or a
// caller that waits, records them, and turns whatever goes wrong into one failure of the whole
// group. How bytes move is its transport's business.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "ashlar/communicator.hpp"
#include "comm/flight_recorder.hpp"
#include "comm/operation.hpp"
#include "comm/transport.hpp"
#include "comm/waiter.hpp"

namespace ashlar::detail {

class GroupCommunicator final : public Communicator {
 public:
  explicit GroupCommunicator(std::unique_ptr<Transport> transport);
  /// Waits for what is queued, then leaves the group.
  ~GroupCommunicator() override;

  int rank() const override { return transport_->rank(); }
  int size() const override { return transport_->size(); }
  std::string_view name() const override { return transport_->name(); }
  bool same_node(int rank) const override { return transport_->same_node(rank); }

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
  std::unique_ptr<Communicator> split(int color, int key) override;

  MemoryResource& window() override { return transport_->window(); }
  SentBytes sent_bytes() const override { return transport_->sent_bytes(); }
  std::vector<std::string> recent() const override;
  void set_timeout(std::chrono::milliseconds timeout) override;
  void set_waits_at_once(bool on) override;
  void abort(std::string_view reason) noexcept override;

  /// Waits, for as long as they live, until all ranks close. @return false when the group has
  /// failed.
  bool close() noexcept;
  const FlightRecorder& recorder() const { return recorder_; }
  std::chrono::milliseconds timeout() const { return waiter_.timeout(); }

 private:
  using Queue = std::vector<std::shared_ptr<Operation>>;
  /// Room for what a training step has in flight, so that its steps allocate nothing.
  static Queue make_queue() {
    Queue queue;
    queue.reserve(64);
    return queue;
  }

  std::shared_ptr<Operation> prepare();
  Work start(std::shared_ptr<Operation> operation, Kind kind, std::string_view label, int peer,
             StreamRef stream);
  void serve();
  bool told_to_stop() const;
  bool run_collectives();
  void run(Operation& operation);
  bool progress_messages();
  bool advance_message(Operation& operation);
  void finish(Operation& operation, std::string error);
  void give_up(std::string_view reason);

  std::unique_ptr<Transport> transport_;
  std::shared_ptr<OperationPool> pool_ = OperationPool::make();
  FlightRecorder recorder_;
  std::int64_t collectives_ = 0;
  std::int64_t messages_ = 0;

  mutable std::mutex mutex_;  // of what callers and the thread share
  Queue queued_collectives_ = make_queue();
  Queue queued_messages_ = make_queue();
  bool stopping_ = false;
  std::atomic<bool> waits_at_once_ = false;

  // From here on of whoever holds the service.
  std::shared_ptr<Service> service_ = std::make_shared<Service>();
  std::string failure_;
  Queue collectives_taken_ = make_queue();
  Queue messages_taken_ = make_queue();
  Waiter waiter_;
  std::thread thread_;  // last: it starts when the rest is ready
};

}  // namespace ashlar::detail
