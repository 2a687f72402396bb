// MPI as this library uses it: initialised once, a duplicated communicator whose errors return, and
// non-blocking messages between pairs of ranks, nothing else. Calls are serialised by a lock.
#pragma once

#include <mpi.h>

#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "comm/processes.hpp"
#include "comm/transport.hpp"

namespace ashlar::detail {

/// Owns MPI for the length of the program.
class MpiSession {
 public:
  MpiSession();
  /// Finalises; all messages must be complete.
  ~MpiSession();
  MpiSession(const MpiSession&) = delete;
  MpiSession& operator=(const MpiSession&) = delete;

  int rank() const { return rank_; }
  int size() const { return size_; }
  MPI_Comm communicator() const { return communicator_; }
  std::mutex& mutex() { return mutex_; }
  Processes& processes() { return *processes_; }
  /// By MPI's own collective: for start-up, before any communication thread runs.
  std::vector<std::string> exchange(const std::string& text);
  /// Contexts keep groups' messages apart; members of a new group agree on the largest next one.
  int next_context() const { return next_context_; }
  void set_next_context(int context) { next_context_ = context; }

 private:
  MPI_Comm communicator_ = MPI_COMM_NULL;
  int rank_ = 0;
  int size_ = 1;
  int next_context_ = 1;
  std::mutex mutex_;
  std::unique_ptr<Processes> processes_;
};

/// @throws Error with MPI's own text.
void check_mpi(int status, std::string_view what);

enum class MpiTag : std::uint8_t { header, data, control, message_header, message_data };

/// MPI counts in int: longer messages travel as several of at most this many bytes.
inline constexpr std::int64_t kLongestMessage = std::int64_t{1} << 30;

/// The ranks of one group, as MPI numbers them.
class MpiGroup {
 public:
  /// @param piece bytes of one message, the same on all ranks; fewer in tests.
  MpiGroup(std::shared_ptr<MpiSession> session, std::vector<int> members, int context,
           std::int64_t piece = kLongestMessage);

  MpiSession& session() const { return *session_; }
  int size() const { return static_cast<int>(members_.size()); }
  int member(int rank) const { return members_[static_cast<std::size_t>(rank)]; }
  /// A group of `members` (ranks of this one). Collective over this group.
  MpiGroup split(std::span<const int> members, const Exchange& exchange) const;

  /// Post messages of any length, in pieces; requests are appended.
  void send(const void* data, std::int64_t bytes, int rank, MpiTag tag,
            std::vector<MPI_Request>& requests) const;
  void recv(void* data, std::int64_t bytes, int rank, MpiTag tag,
            std::vector<MPI_Request>& requests) const;
  /// Whether all are complete; they are then forgotten.
  bool test(std::vector<MPI_Request>& requests) const;
  /// For receives into memory that will go.
  void cancel(std::vector<MPI_Request>& requests) const noexcept;

 private:
  int tag_of(MpiTag tag) const { return context_ * 8 + static_cast<int>(tag); }

  std::shared_ptr<MpiSession> session_;
  std::vector<int> members_;
  int context_;
  std::int64_t piece_;
};

/// Sends and receives between two ranks, of any group under MPI.
class MpiMessages {
 public:
  explicit MpiMessages(MpiGroup group) : group_(std::move(group)) {}
  const MpiGroup& group() const { return group_; }
  bool advance(Operation& operation);

 private:
  struct Pending {
    const Operation* operation;
    std::unique_ptr<Header> header;
    std::vector<MPI_Request> requests;
  };
  Pending& pending(const Operation& operation);
  void forget(const Operation& operation);

  MpiGroup group_;
  std::vector<Pending> pending_;
};

}  // namespace ashlar::detail
