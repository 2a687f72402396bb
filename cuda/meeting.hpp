// Where the host threads of ranks that share a GPU show each other what they call. No device is
// waited for, but by a group that has failed.
#pragma once

#include <array>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "comm/operation.hpp"

namespace ashlar::cuda {

class Meeting {
 public:
  /// What a rank brings: its call, and a point in a stream.
  struct Post {
    const detail::Operation* operation = nullptr;
    Event event;
  };

  explicit Meeting(int ranks);

  /// Returns once every rank has come as often as this one. @param leaves peers' memory is in use
  /// from the first meeting of a call to the event of its last, which `leaves` is said with
  /// @return what each has brought, by rank, valid until this rank comes again
  /// @throws CommunicationError once the group has failed; it does when time is up.
  std::span<const Post> meet(int rank, Post post, bool leaves, std::chrono::milliseconds timeout);

  /// The first reason stays.
  void fail(std::string_view reason) noexcept;
  /// @throws CommunicationError if the group has failed.
  void require_alive() const;
  /// After a failure, with nothing of this rank on its streams: returns once no peer uses what this
  /// rank has shown.
  void settle(int rank) noexcept;

 private:
  void fail_locked(std::string_view reason);
  [[noreturn]] void refuse() const;
  std::string missing(std::int64_t number, std::chrono::milliseconds timeout) const;

  mutable std::mutex mutex_;
  std::condition_variable news_;
  std::vector<std::int64_t> came_;  // by rank: how often
  // Who comes again has left the meeting before last, and so have all whom it met in the last.
  std::array<std::vector<Post>, 2> posts_;
  std::vector<bool> inside_;  // by rank: it may use peers' memory as it goes on
  std::vector<Event> left_;   // by rank: the end of its last call
  bool failed_ = false;
  std::string reason_;
};

}  // namespace ashlar::cuda
