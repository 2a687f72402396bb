#include "cuda/meeting.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "ashlar/error.hpp"

namespace ashlar::cuda {

Meeting::Meeting(int ranks)
    : came_(static_cast<std::size_t>(ranks)),
      inside_(static_cast<std::size_t>(ranks)),
      left_(static_cast<std::size_t>(ranks)) {
  for (auto& posts : posts_) posts.resize(static_cast<std::size_t>(ranks));
}

std::span<const Meeting::Post> Meeting::meet(int rank, Post post, bool leaves,
                                             std::chrono::milliseconds timeout) {
  std::unique_lock lock(mutex_);
  if (failed_) refuse();
  const auto own = static_cast<std::size_t>(rank);
  const std::int64_t number = ++came_[own];
  auto& posts = posts_[static_cast<std::size_t>(number % 2)];
  inside_[own] = !leaves;
  if (leaves) left_[own] = post.event;
  posts[own] = std::move(post);
  const auto all_here = [&] {
    return std::ranges::all_of(came_, [&](std::int64_t n) { return n >= number; });
  };
  if (all_here())
    news_.notify_all();
  else
    news_.wait_for(lock, timeout, [&] { return failed_ || all_here(); });
  if (all_here()) return posts;
  if (!failed_) fail_locked(missing(number, timeout));
  refuse();
}

std::string Meeting::missing(std::int64_t number, std::chrono::milliseconds timeout) const {
  const auto late = std::ranges::find_if(came_, [&](std::int64_t n) { return n < number; });
  return fmt::format("rank {} has not arrived within {} ms", late - came_.begin(), timeout.count());
}

void Meeting::fail_locked(std::string_view reason) {
  if (failed_) return;
  failed_ = true;
  reason_ = reason;
  news_.notify_all();
}

void Meeting::fail(std::string_view reason) noexcept {
  const std::scoped_lock lock(mutex_);
  fail_locked(reason);
}

void Meeting::refuse() const { throw CommunicationError(reason_); }

void Meeting::require_alive() const {
  const std::scoped_lock lock(mutex_);
  if (failed_) refuse();
}

void Meeting::settle(int rank) noexcept {
  std::vector<Event> ends;
  {
    std::unique_lock lock(mutex_);
    inside_[static_cast<std::size_t>(rank)] = false;
    left_[static_cast<std::size_t>(rank)] = {};
    news_.notify_all();
    news_.wait(lock, [&] { return std::ranges::none_of(inside_, std::identity()); });
    ends = left_;
  }
  for (const Event& end : ends) {
    try {
      end.wait();
    } catch (const std::exception&) {  // the device has failed, nothing runs on it
    }
  }
}

}  // namespace ashlar::cuda
