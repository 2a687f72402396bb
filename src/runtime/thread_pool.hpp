// Fork and join for kernels: a fixed set of threads and a fixed assignment of tasks to them.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace ashlar {

/// `threads` threads, the caller among them. Task i runs on thread i mod threads, in ascending
/// order, so the assignment depends on (tasks, threads) alone. Dispatch allocates nothing; waiting
/// threads spin briefly, then sleep.
class ThreadPool {
 public:
  /// @param threads at least 1; 1 starts no thread. @throws InvalidArgument.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  /// Runs task(0) ... task(tasks - 1) and returns when all are done. One caller at a time; tasks do
  /// not call parallel.
  /// @throws what the lowest failing task threw; a thread skips its remaining tasks after a
  /// failure.
  template <typename Task>
  void parallel(int tasks, const Task& task) {
    if (workers_.empty() || tasks <= 1) {
      for (int i = 0; i < tasks; ++i) task(i);
      return;
    }
    fork_join(
        {tasks, &task, [](const void* self, int i) { (*static_cast<const Task*>(self))(i); }});
  }

 private:
  struct Job {
    int tasks = 0;
    const void* self = nullptr;
    void (*call)(const void* self, int task) = nullptr;
  };

  void fork_join(const Job& job);
  void serve(int thread);
  void run_share(int thread);

  std::vector<std::thread> workers_;
  std::mutex mutex_;
  std::condition_variable start_;
  std::condition_variable finish_;
  Job job_;
  std::atomic<std::uint64_t> generation_{0};  // grows by one with each job and at the end
  std::atomic<int> unfinished_{0};            // workers still in the current job
  std::atomic<bool> busy_{false};
  bool stopping_ = false;
  int failed_task_ = 0;
  std::exception_ptr error_;
};

}  // namespace ashlar
