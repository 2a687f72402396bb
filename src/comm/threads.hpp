// Ranks as threads of one process: they read each other's memory directly.
#pragma once

#include <memory>
#include <vector>

#include "comm/board.hpp"
#include "comm/transport.hpp"

namespace ashlar::detail {

/// What the ranks of a group share. Mailboxes carry one message at a time per pair and direction.
class ThreadGroup {
 public:
  explicit ThreadGroup(int size);
  ~ThreadGroup();
  ThreadGroup(const ThreadGroup&) = delete;
  ThreadGroup& operator=(const ThreadGroup&) = delete;

  struct alignas(64) Mailbox {
    enum State : std::uint32_t { empty, full, taken };
    std::atomic<std::uint32_t> state{empty};
    const std::byte* values = nullptr;
    Header header;
  };

  int size() const { return size_; }
  Board& board() { return *board_; }
  Mailbox& mailbox(int source, int destination) {
    return mailboxes_[static_cast<std::size_t>(source * size_ + destination)];
  }

 private:
  int size_;
  Board* board_;
  std::vector<Mailbox> mailboxes_;
};

std::unique_ptr<Transport> thread_transport(std::shared_ptr<ThreadGroup> group, int rank,
                                            std::string_view name);

}  // namespace ashlar::detail
