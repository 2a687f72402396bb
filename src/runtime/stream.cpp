// Streams and events of the CPU: a stream is a worker thread with a queue.
#include <atomic>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>

#include "ashlar/device.hpp"
#include "ashlar/error.hpp"
#include "runtime/spin.hpp"

namespace ashlar {
namespace detail {

struct EventState {
  std::atomic<bool> done{false};
  std::mutex mutex;
  std::condition_variable happened;

  void set() {
    {
      const std::scoped_lock lock(mutex);
      done.store(true, std::memory_order_release);
    }
    happened.notify_all();
  }

  void wait() {
    const auto is_done = [this] { return done.load(std::memory_order_acquire); };
    if (spin_until(is_done)) return;
    std::unique_lock lock(mutex);
    happened.wait(lock, is_done);
  }
};

struct StreamState {
  StreamState() : worker([this] { serve(); }) {}
  StreamState(const StreamState&) = delete;
  StreamState& operator=(const StreamState&) = delete;
  ~StreamState() {
    {
      const std::scoped_lock lock(mutex);
      stopping = true;
      pending.store(true, std::memory_order_release);
    }
    arrived.notify_one();
    worker.join();
  }

  void push(std::function<void()> work) {
    {
      const std::scoped_lock lock(mutex);
      queue.push_back(std::move(work));
      pending.store(true, std::memory_order_release);
    }
    arrived.notify_one();
  }

  /// The next piece of work; empty when the stream ends.
  std::function<void()> pop() {
    spin_until([this] { return pending.load(std::memory_order_acquire); });
    std::unique_lock lock(mutex);
    arrived.wait(lock, [this] { return stopping || !queue.empty(); });
    if (queue.empty()) return {};
    std::function<void()> work = std::move(queue.front());
    queue.pop_front();
    pending.store(stopping || !queue.empty(), std::memory_order_release);
    return work;
  }

  void serve() {
    while (std::function<void()> work = pop()) {
      try {
        work();
      } catch (...) {
        const std::scoped_lock lock(mutex);
        if (!error) error = std::current_exception();
      }
    }
  }

  std::exception_ptr take_error() {
    const std::scoped_lock lock(mutex);
    return std::exchange(error, nullptr);
  }

  std::mutex mutex;
  std::condition_variable arrived;
  std::deque<std::function<void()>> queue;
  std::atomic<bool> pending{false};  // a hint for spinning: work or the end has come
  bool stopping = false;
  std::exception_ptr error;
  std::thread worker;  // last: it starts when the rest is ready
};

}  // namespace detail

void StreamRef::enqueue(std::function<void()> work) const {
  if (is_inline())
    work();
  else
    state_->push(std::move(work));
}

void StreamRef::wait(const Event& event) const {
  if (event.done()) return;
  enqueue([event] { event.wait(); });
}

Event StreamRef::record() const {
  Event event;
  if (is_inline()) return event;
  event.state_ = std::make_shared<detail::EventState>();
  state_->push([state = event.state_] { state->set(); });
  return event;
}

void StreamRef::synchronize() const {
  if (is_inline()) return;
  if (std::this_thread::get_id() == state_->worker.get_id())
    throw InvalidArgument(
        "a stream cannot synchronize with itself: its own work called synchronize()");
  record().wait();
  if (const std::exception_ptr error = state_->take_error()) std::rethrow_exception(error);
}

Stream::Stream() : state_(std::make_unique<detail::StreamState>()) {}
Stream::~Stream() = default;
Stream::Stream(Stream&&) noexcept = default;
Stream& Stream::operator=(Stream&&) noexcept = default;

bool Event::done() const {
  return state_ == nullptr || state_->done.load(std::memory_order_acquire);
}

void Event::wait() const {
  if (state_ != nullptr) state_->wait();
}

}  // namespace ashlar
