// What stands behind the handles of ashlar/device.hpp, once for each type of device.
#pragma once

#include <functional>
#include <memory>

#include "ashlar/device.hpp"

namespace ashlar::detail {

struct EventState {
  EventState() = default;
  EventState(const EventState&) = delete;
  EventState& operator=(const EventState&) = delete;
  virtual ~EventState() = default;
  virtual bool done() const = 0;
  virtual void wait() const = 0;
};

/// Work of streams that was recorded instead of run, to be enqueued as often as wanted.
struct RecordingState {
  RecordingState() = default;
  RecordingState(const RecordingState&) = delete;
  RecordingState& operator=(const RecordingState&) = delete;
  virtual ~RecordingState() = default;
  /// On the stream that it was recorded on.
  virtual void launch() = 0;
};

struct StreamState {
  explicit StreamState(Device where) : device(where) {}
  StreamState(const StreamState&) = delete;
  StreamState& operator=(const StreamState&) = delete;
  virtual ~StreamState() = default;  // drains the stream
  virtual void enqueue(std::function<void()> work) = 0;
  virtual void wait(const std::shared_ptr<EventState>& event) = 0;
  virtual std::shared_ptr<EventState> record() = 0;
  virtual void synchronize() = 0;

  /// Until end_recording(), what is enqueued here, and on streams from where they wait for an event
  /// of here, is recorded and not run. Those streams are joined again (this one waits for an event
  /// of theirs) before the end. Recorded events are neither asked nor waited for by the host, and
  /// nothing waits for the events of an earlier recording. @throws Error on streams of the CPU.
  virtual void begin_recording();
  /// After an exception it may be incomplete: it is not launched then.
  virtual std::unique_ptr<RecordingState> end_recording();
  /// Whether a recording that began here lasts.
  virtual bool recording() const { return false; }

  const Device device;
};

/// What stands behind a stream that is not the inline one.
inline StreamState& state_of(StreamRef stream) {
  return *static_cast<StreamState*>(const_cast<void*>(stream.id()));
}

inline bool is_recording(StreamRef stream) {
  return !stream.is_inline() && state_of(stream).recording();
}

/// @throws CudaError for a CUDA device that does not work here.
std::unique_ptr<StreamState> make_stream(Device device);
std::unique_ptr<StreamState> make_cpu_stream();
/// @throws CudaError when the device does not work here.
std::unique_ptr<StreamState> make_cuda_stream(int index);
int cuda_device_count() noexcept;
/// What the calling thread launches goes to this device. @throws CudaError.
void make_current(Device device);
/// Why cuda_device_count() is 0: built without CUDA, no driver, no card.
std::string why_no_cuda();

}  // namespace ashlar::detail
