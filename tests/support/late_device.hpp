// A device without hardware for whole training steps: what its streams are given runs when the host
// waits for it, as late as events allow, or ahead of that as a test chooses. Its memory is mapped
// while a stream works alone. Hosts of several ranks may share it. Streams whose work waits for
// other ranks run it beside the host, which then moves the device by asking for events. Recordings
// are held to the rules of CUDA's.
#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <deque>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "ashlar/error.hpp"
#include "ashlar/memory_resource.hpp"
#include "runtime/stream_state.hpp"

namespace ashlar::test {

class LateDevice {
 public:
  /// What runs before anybody waits for it: nothing, all that the first stream can, all that the
  /// others can, or pieces of any. shuffled: nothing; then, in the order of chance, pieces of any.
  enum class Ahead { nothing, first, others, random, shuffled };

  explicit LateDevice(Ahead ahead, unsigned seed = 1) : ahead_(ahead), random_(seed) {}
  StreamRef stream() {
    const std::scoped_lock lock(mutex_);
    streams_.push_back(std::make_unique<LateStream>(*this));
    return StreamRef(streams_.back().get());
  }
  /// A stream beside the host. The device outlives it.
  std::unique_ptr<detail::StreamState> make_stream() {
    const std::scoped_lock lock(mutex_);
    asked_ = true;
    streams_.push_back(std::make_unique<LateStream>(*this, true));
    return std::make_unique<Handle>(*streams_.back());
  }
  /// The host that reads or writes it itself has an access violation.
  MemoryResource& memory() { return memory_; }

  /// Times that the host waited for what had not happened yet, or for a stream that was not empty.
  int host_waits() const { return host_waits_; }
  int allocations() const { return memory_.allocations(); }
  int recordings = 0, launches = 0;
  /// The stream and the number of its wait that is left out; -1: none.
  int lost_stream = -1, lost_wait = -1;
  /// How often a stream has been told to wait.
  int waits(int stream) const { return streams_[static_cast<std::size_t>(stream)]->waits(); }

 private:
  class Memory final : public MemoryResource {
   public:
    explicit Memory(std::recursive_mutex& mutex) : mutex_(mutex) {}
    void open() {
      if (users_++ == 0) allow(PROT_READ | PROT_WRITE);
    }
    void close() {
      if (--users_ == 0) allow(PROT_NONE);
    }
    int allocations() const { return allocations_; }

   private:
    void* do_allocate(std::int64_t bytes, Category, StreamRef) override {
      const std::scoped_lock lock(mutex_);
      const auto size = static_cast<std::size_t>(align_up(std::max<std::int64_t>(bytes, 1), 4096));
      const int access = users_ > 0 ? PROT_READ | PROT_WRITE : PROT_NONE;
      void* block = ::mmap(nullptr, size, access, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      if (block == MAP_FAILED) throw Error("the device's memory cannot be mapped");
      blocks_.emplace(block, size);
      ++allocations_;
      return block;
    }
    void do_deallocate(void* block, std::int64_t, Category, StreamRef) noexcept override {
      const std::scoped_lock lock(mutex_);
      ::munmap(block, blocks_.at(block));
      blocks_.erase(block);
    }
    void allow(int access) {
      for (const auto& [block, bytes] : blocks_) ::mprotect(block, bytes, access);
    }
    std::recursive_mutex& mutex_;
    std::map<void*, std::size_t> blocks_;
    int users_ = 0, allocations_ = 0;
  };

  class LateStream;
  struct Recording;

  struct LateEvent final : detail::EventState {
    explicit LateEvent(LateStream& on) : stream(on) {}
    bool done() const override {
      const std::scoped_lock lock(stream.device().mutex_);
      if (recorded != 0) throw Error("the host asks for an event of a recording");
      if (stream.device().recording_) throw Error("the host asks for an event as it records");
      if (!happened && stream.device().asked_) stream.device().move(stream);
      return happened;
    }
    void wait() const override {
      const std::scoped_lock lock(stream.device().mutex_);
      if (done()) return;
      ++stream.device().host_waits_;
      await();
    }
    void await() const {
      while (!happened)
        if (!stream.device().go_on(stream)) throw Error("the streams wait for each other");
    }
    LateStream& stream;
    bool happened = false;
    int recorded = 0;  // number of the recording that it is of; 0: it happens
  };

  /// One call on a stream: work, what it waits for, or an event to record.
  struct Piece {
    std::function<void()> work;
    std::shared_ptr<LateEvent> before, mark;
  };

  class LateStream final : public detail::StreamState {
   public:
    /// @param beside the host
    explicit LateStream(LateDevice& owner, bool beside = false)
        : StreamState(Device{}), device_(owner) {
      if (beside) worker_.emplace();
    }
    LateDevice& device() const { return device_; }
    int waits() const { return waits_; }

    void enqueue(std::function<void()> work) override { push({std::move(work), {}, {}}); }
    void wait(const std::shared_ptr<detail::EventState>& state) override {
      const std::scoped_lock lock(device_.mutex_);
      const auto event = std::dynamic_pointer_cast<LateEvent>(state);
      const bool lost = device_.streams_[lost_index()].get() == this && device_.lost_stream >= 0 &&
                        device_.lost_wait == waits_;
      ++waits_;
      if (lost) return;
      if (event->recorded != 0) {
        if (!device_.recording_ || device_.recording_->number != event->recorded)
          throw Error("the event is of a recording");
        if (!recording_) recording_ = device_.recording_;
      } else if (recording_) {
        throw Error("a recording waits for what is not recorded");
      }
      push({{}, event, {}});
    }
    std::shared_ptr<detail::EventState> record() override {
      const std::scoped_lock lock(device_.mutex_);
      auto event = std::make_shared<LateEvent>(*this);
      event->recorded = recording_ ? recording_->number : 0;
      push({{}, {}, event});
      return event;
    }
    void synchronize() override {
      const std::scoped_lock lock(device_.mutex_);
      if (recording_) throw Error("the host waits for a recording");
      if (device_.recording_) throw Error("the host waits for a stream as it records");
      if (!empty()) ++device_.host_waits_;
      while (!empty())
        if (!device_.go_on(*this)) throw Error("the streams wait for each other");
      if (const auto error = std::exchange(error_, nullptr)) std::rethrow_exception(error);
    }

    void begin_recording() override {
      const std::scoped_lock lock(device_.mutex_);
      if (device_.recording_) throw Error("one recording at a time");
      recording_ = device_.recording_ = std::make_shared<Recording>(*this, ++device_.recordings);
    }
    std::unique_ptr<detail::RecordingState> end_recording() override;
    bool recording() const override { return recording_ != nullptr; }

    void push(Piece piece) {
      const std::scoped_lock lock(device_.mutex_);
      if (recording_) return recording_->add(*this, std::move(piece));
      queue_.push_back(std::move(piece));
      device_.run_ahead();
    }

    /// Runs the next piece. @param needed if it waits for another stream, that one goes first
    bool advance(bool needed) {
      if (flying_) return land();
      if (busy_ || queue_.empty()) return false;
      const auto before = queue_.front().before;
      busy_ = true;
      if (before && !before->happened && needed) before->await();
      busy_ = false;
      if (before && !before->happened) return false;
      const Piece piece = std::move(queue_.front());
      queue_.pop_front();
      if (piece.work && worker_) {
        take_off(piece.work);
        return true;
      }
      busy_ = true;
      if (piece.work) run(piece.work);
      if (piece.mark) piece.mark->happened = true;
      busy_ = false;
      device_.run_ahead();
      return true;
    }

   private:
    friend class LateDevice;

    std::size_t lost_index() const {
      return static_cast<std::size_t>(std::max(device_.lost_stream, 0));
    }
    bool empty() const { return queue_.empty() && !flying_; }
    void run(const std::function<void()>& work) {
      device_.memory_.open();
      call(work);
      device_.memory_.close();
    }
    void call(const std::function<void()>& work) {
      try {
        work();
      } catch (...) {
        if (!error_) error_ = std::current_exception();
      }
    }
    void take_off(const std::function<void()>& work) {
      device_.memory_.open();
      StreamRef(*worker_).enqueue([this, work] { call(work); });
      landed_ = StreamRef(*worker_).record();
      flying_ = true;
    }
    /// What runs beside the host may end before the host goes on.
    void stay() {
      const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(50);
      while (flying_ && !landed_.done() && std::chrono::steady_clock::now() < end)
        std::this_thread::yield();
    }
    /// @return whether what runs beside the host has ended
    bool land() {
      if (!landed_.done()) return false;
      flying_ = false;
      device_.memory_.close();
      device_.run_ahead();
      return true;
    }

    LateDevice& device_;
    std::optional<Stream> worker_;
    Event landed_;
    bool flying_ = false;
    std::deque<Piece> queue_;
    std::shared_ptr<Recording> recording_;  // that this stream takes part in
    bool busy_ = false;
    int waits_ = 0;
    std::exception_ptr error_;
  };

  /// What the owner of a stream of the device has.
  struct Handle final : detail::StreamState {
    explicit Handle(LateStream& of) : StreamState(Device{}), stream(of) {}
    void enqueue(std::function<void()> work) override { stream.enqueue(std::move(work)); }
    void wait(const std::shared_ptr<detail::EventState>& event) override { stream.wait(event); }
    std::shared_ptr<detail::EventState> record() override { return stream.record(); }
    void synchronize() override { stream.synchronize(); }
    bool recording() const override { return stream.recording(); }
    LateStream& stream;
  };

  /// Calls in the order that they were made in.
  struct Recording {
    Recording(LateStream& stream, int which) : origin(stream), number(which) {}
    void add(LateStream& stream, Piece piece) { calls.emplace_back(&stream, std::move(piece)); }
    /// As CUDA: the origin waits for each stream's last event.
    bool is_joined(const LateStream& stream) const {
      const LateEvent* last = nullptr;
      bool waited = true;
      for (const auto& [on, piece] : calls) {
        if (on == &stream) {
          last = piece.mark.get();
          waited = waited && piece.mark != nullptr;
        }
        if (on == &origin && piece.before && piece.before.get() == last) waited = true;
      }
      return waited;
    }
    void launch() const {
      std::map<LateEvent*, std::shared_ptr<LateEvent>> marks;
      for (const auto& [stream, recorded] : calls) {
        Piece piece = recorded;
        if (piece.mark) piece.mark = marks[piece.mark.get()] = std::make_shared<LateEvent>(*stream);
        if (piece.before) piece.before = marks.at(piece.before.get());
        stream->push(std::move(piece));
      }
    }
    LateStream& origin;
    const int number;
    std::vector<std::pair<LateStream*, Piece>> calls;
  };

  struct Replay final : detail::RecordingState {
    explicit Replay(std::shared_ptr<Recording> of) : recording(std::move(of)) {}
    void launch() override {
      const std::scoped_lock lock(recording->origin.device().mutex_);
      ++recording->origin.device().launches;
      recording->launch();
    }
    std::shared_ptr<Recording> recording;
  };

  /// @return whether a piece has run, for the sake of `stream`
  bool go_on(LateStream& stream) {
    for (int i = 0; ahead_ == Ahead::shuffled && i < 32; ++i)
      if (streams_[random_() % streams_.size()]->advance(false)) return true;
    if (stream.advance(true)) return true;
    const auto flies = [](const auto& each) { return each->flying_; };
    if (std::none_of(streams_.begin(), streams_.end(), flies)) return false;
    std::this_thread::sleep_for(std::chrono::microseconds(20));
    return true;
  }

  /// A piece for the sake of `stream`, or of others; waits for none.
  void move(LateStream& stream) {
    if (stream.advance(false)) return;
    for (const auto& other : streams_)
      if (other->advance(false)) return;
  }

  void run_ahead() {
    if (std::exchange(running_ahead_, true)) return;
    while (ahead_ == Ahead::random && random_() % 8 != 0)
      streams_[random_() % streams_.size()]->advance(false);
    for (std::size_t s = 0; s < streams_.size(); ++s) {
      const bool chosen = s == 0 ? ahead_ == Ahead::first : ahead_ == Ahead::others;
      while (chosen && streams_[s]->advance(false)) streams_[s]->stay();
    }
    running_ahead_ = false;
  }

  mutable std::recursive_mutex mutex_;  // of all, for hosts of several ranks
  Memory memory_{mutex_};
  Ahead ahead_;
  std::mt19937 random_;
  bool running_ahead_ = false;
  bool asked_ = false;  // the device moves as the host asks
  int host_waits_ = 0;
  std::shared_ptr<Recording> recording_;
  std::vector<std::unique_ptr<LateStream>> streams_;
};

inline std::unique_ptr<detail::RecordingState> LateDevice::LateStream::end_recording() {
  const std::scoped_lock lock(device_.mutex_);
  const std::shared_ptr<Recording> recording = std::exchange(device_.recording_, nullptr);
  for (const auto& stream : device_.streams_) {
    if (!std::exchange(stream->recording_, nullptr)) continue;
    if (stream.get() != this && !recording->is_joined(*stream))
      throw Error("a recording ends before a stream has joined it again");
  }
  return std::make_unique<Replay>(recording);
}

}  // namespace ashlar::test
