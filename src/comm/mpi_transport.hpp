// Collectives as messages: for ranks on several nodes, and where no memory can be shared. Headers
// go round first, so that nobody moves data for different calls; sums arrive in bounded pieces and
// are added in rank order by the same kernel as everywhere.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <deque>

#include "comm/mpi_session.hpp"
#include "comm/pass.hpp"
#include "comm/transport.hpp"

namespace ashlar::detail {

class MpiTransport final : public Transport {
 public:
  MpiTransport(int rank, MpiGroup group);
  ~MpiTransport() override;

  std::string_view name() const override { return "mpi"; }
  bool same_node(int rank) const override {
    return group_.session().processes().same_node(group_.member(rank));
  }
  void run(Operation& operation, Waiter& waiter) override;
  bool advance(Operation& operation) override;
  Doorbell& bell() override { return bell_; }
  Doorbell& meeting() override { return bell_; }
  std::chrono::microseconds longest_sleep(bool waiting, bool messages_pending) const override;
  std::optional<std::string> failure() override;
  std::optional<std::string> absence(int rank) override;
  void fail(std::string_view reason) noexcept override;
  void settle() noexcept override {}
  void leave() noexcept override;
  MemoryResource& window() override { return host_memory(); }
  SentBytes sent_bytes() const override;
  std::unique_ptr<Transport> split(std::span<const int> members, const Exchange& exchange) override;

 private:
  using Clock = std::chrono::steady_clock;
  struct Notice {  // what ranks tell each other apart from operations
    enum Type : std::int32_t { alive, left, failed } type = alive;
    std::array<char, 1024> reason{};
  };
  struct Peer {
    Header header;
    std::vector<MPI_Request> header_request;
    std::vector<MPI_Request> data;
    Notice notice;
    std::vector<MPI_Request> notice_request;
    Clock::time_point heard;
    bool left = false;
  };

  void meet(const Header& header, Waiter& waiter);
  void copy(const Pass& pass, Waiter& waiter);
  void sum(const Pass& pass, Waiter& waiter);
  void count(const Pass& pass, std::int64_t elements);
  void wait_for_data(Waiter& waiter);
  void listen();
  void tell(const Notice& notice);
  void abandon() noexcept;

  MpiMessages messages_;
  const MpiGroup& group_;
  Doorbell bell_;
  std::vector<Peer> peers_;
  std::vector<MPI_Request> sends_;
  std::vector<std::byte> scratch_;
  std::vector<const std::byte*> sources_;
  std::array<std::atomic<std::int64_t>, kTrafficKinds> sent_{};

  std::deque<Notice> notices_;  // in flight: their memory must stay
  std::vector<MPI_Request> notice_sends_;
  Clock::time_point last_beat_{};
  bool several_nodes_ = false;
  bool told_failure_ = false;
  std::mutex failure_mutex_;
  std::string failure_;
};

}  // namespace ashlar::detail
