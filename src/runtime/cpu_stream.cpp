// A stream of the CPU: a worker thread with a queue.
#include <atomic>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>

#include "ashlar/error.hpp"
#include "runtime/spin.hpp"
#include "runtime/stream_state.hpp"

namespace ashlar::detail {
namespace {

class CpuEvent final : public EventState {
 public:
  void set() {
    {
      const std::scoped_lock lock(mutex_);
      done_.store(true, std::memory_order_release);
    }
    happened_.notify_all();
  }
  bool done() const override { return done_.load(std::memory_order_acquire); }
  void wait() const override {
    const auto is_done = [this] { return done(); };
    if (spin_until(is_done)) return;
    std::unique_lock lock(mutex_);
    happened_.wait(lock, is_done);
  }

 private:
  std::atomic<bool> done_{false};
  mutable std::mutex mutex_;
  mutable std::condition_variable happened_;
};

class CpuStream final : public StreamState {
 public:
  CpuStream() : StreamState(Device{}), worker_([this] { serve(); }) {}
  ~CpuStream() override {
    {
      const std::scoped_lock lock(mutex_);
      stopping_ = true;
      pending_.store(true, std::memory_order_release);
    }
    arrived_.notify_one();
    worker_.join();
  }

  void enqueue(std::function<void()> work) override {
    {
      const std::scoped_lock lock(mutex_);
      queue_.push_back(std::move(work));
      pending_.store(true, std::memory_order_release);
    }
    arrived_.notify_one();
  }

  void wait(const std::shared_ptr<EventState>& event) override {
    if (!event->done()) enqueue([event] { event->wait(); });
  }

  std::shared_ptr<EventState> record() override {
    auto event = std::make_shared<CpuEvent>();
    enqueue([event] { event->set(); });
    return event;
  }

  void synchronize() override {
    if (std::this_thread::get_id() == worker_.get_id())
      throw InvalidArgument(
          "a stream cannot synchronize with itself: its own work called synchronize()");
    record()->wait();
    if (const std::exception_ptr error = take_error()) std::rethrow_exception(error);
  }

 private:
  /// The next piece of work; empty when the stream ends.
  std::function<void()> pop() {
    spin_until([this] { return pending_.load(std::memory_order_acquire); });
    std::unique_lock lock(mutex_);
    arrived_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
    if (queue_.empty()) return {};
    std::function<void()> work = std::move(queue_.front());
    queue_.pop_front();
    pending_.store(stopping_ || !queue_.empty(), std::memory_order_release);
    return work;
  }

  void serve() {
    while (std::function<void()> work = pop()) {
      try {
        work();
      } catch (...) {
        const std::scoped_lock lock(mutex_);
        if (!error_) error_ = std::current_exception();
      }
    }
  }

  std::exception_ptr take_error() {
    const std::scoped_lock lock(mutex_);
    return std::exchange(error_, nullptr);
  }

  std::mutex mutex_;
  std::condition_variable arrived_;
  std::deque<std::function<void()>> queue_;
  std::atomic<bool> pending_{false};  // a hint for spinning: work or the end has come
  bool stopping_ = false;
  std::exception_ptr error_;
  std::thread worker_;  // last: it starts when the rest is ready
};

}  // namespace

std::unique_ptr<StreamState> make_cpu_stream() { return std::make_unique<CpuStream>(); }

}  // namespace ashlar::detail
