// Where work runs and in which order. On the CPU a stream is a worker thread with a queue; the
// inline stream runs work at once on the caller. A CUDA stream is the driver's; which of the two a
// stream is shows in nothing but device().
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace ashlar {

enum class DeviceType : std::uint8_t { cpu, cuda };

struct Device {
  DeviceType type = DeviceType::cpu;
  int index = 0;
  bool operator==(const Device&) const = default;
};

/// How many devices of a type work here: 1 for the CPU; of CUDA none without toolkit, driver or
/// card. Never throws.
int device_count(DeviceType type) noexcept;
/// "cpu", "cuda:0".
std::string to_string(Device device);
/// Of "cpu", "cuda" and "cuda:1". @throws InvalidArgument quoting any other text, and for a CUDA
/// device that is not here, saying why.
Device parse_device(std::string_view text);

class Event;
namespace detail {
struct StreamState;
struct EventState;
}  // namespace detail

/// A non-owning handle to a stream: work enqueued on one stream runs in order. The default handle
/// is the inline stream of the CPU, on which work runs on the calling thread before the call
/// returns.
class StreamRef {
 public:
  StreamRef() = default;
  explicit StreamRef(detail::StreamState* state) : state_(state) {}

  Device device() const;
  bool is_inline() const { return state_ == nullptr; }
  /// Tells streams apart while they live; null for the inline stream.
  const void* id() const { return state_; }
  /// Runs `work` on the host after everything enqueued before it. An exception it throws reaches
  /// the next synchronize(). Work of a CUDA stream calls nothing of CUDA.
  void enqueue(std::function<void()> work) const;
  /// Later work on this stream waits until `event` has happened.
  void wait(const Event& event) const;
  /// An event that happens once everything enqueued so far is done.
  Event record() const;
  /// Blocks the caller until the stream is empty. @throws what the stream's work threw first.
  void synchronize() const;

 private:
  detail::StreamState* state_ = nullptr;
};

/// Owns a stream (on the CPU: its thread). Destruction drains it.
class Stream {
 public:
  Stream() : Stream(Device{}) {}
  /// @throws CudaError for a CUDA device that does not work here.
  explicit Stream(Device device);
  ~Stream();
  Stream(Stream&&) noexcept;
  Stream& operator=(Stream&&) noexcept;
  operator StreamRef() const {
    return StreamRef(state_.get());
  }  // NOLINT(google-explicit-constructor)

 private:
  std::unique_ptr<detail::StreamState> state_;
};

/// A point in a stream. Default-constructed: already happened. Copyable; copies share the point.
class Event {
 public:
  Event() = default;
  bool done() const;
  /// Blocks the calling thread until the event has happened (spins briefly, then sleeps).
  void wait() const;

 private:
  friend class StreamRef;
  explicit Event(std::shared_ptr<detail::EventState> state) : state_(std::move(state)) {}
  std::shared_ptr<detail::EventState> state_;
};

}  // namespace ashlar
