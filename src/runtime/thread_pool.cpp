#include "runtime/thread_pool.hpp"

#include <fmt/format.h>

#include <utility>

#include "ashlar/error.hpp"
#include "runtime/spin.hpp"

namespace ashlar {

ThreadPool::ThreadPool(int threads) {
  if (threads < 1)
    throw InvalidArgument(fmt::format("a thread pool needs at least 1 thread, not {}", threads));
  workers_.reserve(static_cast<std::size_t>(threads - 1));
  for (int t = 1; t < threads; ++t) workers_.emplace_back([this, t] { serve(t); });
}

ThreadPool::~ThreadPool() {
  {
    const std::scoped_lock lock(mutex_);
    stopping_ = true;
    generation_.fetch_add(1, std::memory_order_release);
  }
  start_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::fork_join(const Job& job) {
  if (busy_.exchange(true))
    throw InvalidArgument(
        "a thread pool runs one job at a time: parallel() was called during parallel()");
  {
    const std::scoped_lock lock(mutex_);
    job_ = job;
    unfinished_.store(static_cast<int>(workers_.size()), std::memory_order_relaxed);
    generation_.fetch_add(1, std::memory_order_release);
  }
  start_.notify_all();
  run_share(0);

  const auto finished = [this] { return unfinished_.load(std::memory_order_acquire) == 0; };
  if (!detail::spin_until(finished)) {
    std::unique_lock lock(mutex_);
    finish_.wait(lock, finished);
  }
  const std::exception_ptr error = std::exchange(error_, nullptr);
  busy_.store(false);
  if (error) std::rethrow_exception(error);
}

void ThreadPool::serve(int thread) {
  for (std::uint64_t seen = 0;; ++seen) {
    const auto started = [this, seen] {
      return generation_.load(std::memory_order_acquire) != seen;
    };
    if (!detail::spin_until(started)) {
      std::unique_lock lock(mutex_);
      start_.wait(lock, started);
    }
    if (stopping_) return;
    run_share(thread);
    if (unfinished_.fetch_sub(1, std::memory_order_acq_rel) == 1) {
      const std::scoped_lock lock(mutex_);
      finish_.notify_one();
    }
  }
}

void ThreadPool::run_share(int thread) {
  int task = thread;
  try {
    for (; task < job_.tasks; task += threads()) job_.call(job_.self, task);
  } catch (...) {
    const std::scoped_lock lock(mutex_);
    if (!error_ || task < failed_task_) {
      error_ = std::current_exception();
      failed_task_ = task;
    }
  }
}

}  // namespace ashlar
