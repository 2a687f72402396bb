// A device without hardware for whole training steps: what its streams are given runs when the host
// waits for it, as late as events allow, or ahead of that as a test chooses. Its memory is mapped
// while a stream works alone. One thread uses it.
#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <deque>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "ashlar/error.hpp"
#include "ashlar/memory_resource.hpp"
#include "comm/forwarding.hpp"
#include "runtime/stream_state.hpp"

namespace ashlar::test {

class LateDevice {
 public:
  /// What runs before anybody waits for it: nothing, all that the first stream can, all that the
  /// others can, or pieces of any.
  enum class Ahead { nothing, first, others, random };

  explicit LateDevice(Ahead ahead, unsigned seed = 1) : ahead_(ahead), random_(seed) {}
  StreamRef stream() {
    streams_.push_back(std::make_unique<LateStream>(*this));
    return StreamRef(streams_.back().get());
  }
  /// The host that reads or writes it itself has an access violation.
  MemoryResource& memory() { return memory_; }

 private:
  class Memory final : public MemoryResource {
   public:
    void allow(int access) {
      for (const auto& [block, bytes] : blocks_) ::mprotect(block, bytes, access);
    }

   private:
    void* do_allocate(std::int64_t bytes, Category, StreamRef) override {
      const auto size = static_cast<std::size_t>(align_up(std::max<std::int64_t>(bytes, 1), 4096));
      void* block = ::mmap(nullptr, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      if (block == MAP_FAILED) throw Error("the device's memory cannot be mapped");
      blocks_.emplace(block, size);
      return block;
    }
    void do_deallocate(void* block, std::int64_t, Category, StreamRef) noexcept override {
      ::munmap(block, blocks_.at(block));
      blocks_.erase(block);
    }
    std::map<void*, std::size_t> blocks_;
  };

  class LateStream;

  struct LateEvent final : detail::EventState {
    explicit LateEvent(LateStream& on) : stream(on) {}
    bool done() const override { return happened; }
    void wait() const override {
      while (!happened)
        if (!stream.advance(true)) throw Error("the streams wait for each other");
    }
    LateStream& stream;
    bool happened = false;
  };

  class LateStream final : public detail::StreamState {
   public:
    explicit LateStream(LateDevice& owner) : StreamState(Device{}), device_(owner) {}
    void enqueue(std::function<void()> work) override { push(std::move(work), nullptr); }
    void wait(const std::shared_ptr<detail::EventState>& event) override { push({}, event); }
    std::shared_ptr<detail::EventState> record() override {
      auto event = std::make_shared<LateEvent>(*this);
      push([event] { event->happened = true; }, nullptr);
      return event;
    }
    void synchronize() override {
      while (!queue_.empty())
        if (!advance(true)) throw Error("the streams wait for each other");
      if (const auto error = std::exchange(error_, nullptr)) std::rethrow_exception(error);
    }

    /// Runs the next piece. @param needed if it waits for another stream, that one goes first
    bool advance(bool needed) {
      if (busy_ || queue_.empty()) return false;
      const auto before = queue_.front().second;
      busy_ = true;
      if (before && !before->done() && needed) before->wait();
      busy_ = false;
      if (before && !before->done()) return false;
      const std::function<void()> work = std::move(queue_.front().first);
      queue_.pop_front();
      busy_ = true;
      device_.memory_.allow(PROT_READ | PROT_WRITE);
      try {
        if (work) work();
      } catch (...) {
        if (!error_) error_ = std::current_exception();
      }
      device_.memory_.allow(PROT_NONE);
      busy_ = false;
      device_.run_ahead();
      return true;
    }

   private:
    using Piece = std::pair<std::function<void()>, std::shared_ptr<detail::EventState>>;

    void push(std::function<void()> work, std::shared_ptr<detail::EventState> event) {
      queue_.emplace_back(std::move(work), std::move(event));
      device_.run_ahead();
    }

    LateDevice& device_;
    std::deque<Piece> queue_;  // work, or what it waits for
    bool busy_ = false;
    std::exception_ptr error_;
  };

  void run_ahead() {
    if (std::exchange(running_ahead_, true)) return;
    while (ahead_ == Ahead::random && random_() % 8 != 0)
      streams_[random_() % streams_.size()]->advance(false);
    for (std::size_t s = 0; s < streams_.size(); ++s) {
      const bool chosen = s == 0 ? ahead_ == Ahead::first : ahead_ == Ahead::others;
      while (chosen && streams_[s]->advance(false)) {
      }
    }
    running_ahead_ = false;
  }

  Memory memory_;
  Ahead ahead_;
  std::mt19937 random_;
  bool running_ahead_ = false;
  std::vector<std::unique_ptr<LateStream>> streams_;
};

/// Collectives in the order of a stream of their own, as a GPU's are; on the inline stream they are
/// the inner communicator's. A test may have it lose an order between streams.
class LateCommunicator final : public detail::ForwardingCommunicator {
 public:
  LateCommunicator(Communicator& inner, LateDevice& device)
      : ForwardingCommunicator(inner), window_(device.memory()), ours_(device.stream()) {}

  MemoryResource& window() override { return window_; }

  int sums = 0, joins = 0;
  int lost_sum = -1, lost_join = -1;  // number of the sum that starts at once, of the lost join

  Work all_gather(std::span<const Transfer> flats, std::string_view label,
                  StreamRef stream) override {
    if (stream.is_inline()) return inner_.all_gather(flats, label, stream);
    ours_.wait(stream.record());
    return later([this, all = copy_of(flats), name = std::string(label)] {
      return inner_.all_gather(all, name);
    });
  }
  Work reduce_scatter(std::span<const Transfer> flats, const ReduceOptions& options,
                      std::string_view label, StreamRef stream) override {
    if (stream.is_inline()) return inner_.reduce_scatter(flats, options, label, stream);
    await_terms(stream);
    return later([this, options, all = copy_of(flats), name = std::string(label)] {
      return inner_.reduce_scatter(all, options, name);
    });
  }
  Work all_reduce(TensorView values, std::string_view label, StreamRef stream) override {
    if (stream.is_inline()) return inner_.all_reduce(values, label, stream);
    await_terms(stream);
    return later(
        [this, values, name = std::string(label)] { return inner_.all_reduce(values, name); });
  }

 private:
  struct LateWork final : Work::State {
    explicit LateWork(LateCommunicator& by) : communicator(by) {}
    void wait() override {
      finished.wait();
      if (error) std::rethrow_exception(error);
    }
    bool done() const override { return finished.done(); }
    void join(StreamRef stream) override {
      if (communicator.joins++ != communicator.lost_join) stream.wait(finished);
    }
    LateCommunicator& communicator;
    Event finished;
    std::exception_ptr error;
  };

  static std::vector<Transfer> copy_of(std::span<const Transfer> flats) {
    return {flats.begin(), flats.end()};
  }

  void await_terms(StreamRef stream) {
    if (sums++ != lost_sum) ours_.wait(stream.record());
  }

  Work later(std::function<Work()> call) {
    const auto work = std::make_shared<LateWork>(*this);
    ours_.enqueue([work, call = std::move(call)] {
      try {
        call().wait();
      } catch (...) {
        work->error = std::current_exception();
      }
    });
    work->finished = ours_.record();
    return Work(work);
  }

  MemoryResource& window_;
  StreamRef ours_;
};

}  // namespace ashlar::test
