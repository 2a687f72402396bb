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

struct StreamState {
  explicit StreamState(Device where) : device(where) {}
  StreamState(const StreamState&) = delete;
  StreamState& operator=(const StreamState&) = delete;
  virtual ~StreamState() = default;  // drains the stream
  virtual void enqueue(std::function<void()> work) = 0;
  virtual void wait(const std::shared_ptr<EventState>& event) = 0;
  virtual std::shared_ptr<EventState> record() = 0;
  virtual void synchronize() = 0;

  const Device device;
};

std::unique_ptr<StreamState> make_cpu_stream();
/// @throws CudaError when the device does not work here.
std::unique_ptr<StreamState> make_cuda_stream(int index);
int cuda_device_count() noexcept;
/// Why cuda_device_count() is 0: built without CUDA, no driver, no card.
std::string why_no_cuda();

}  // namespace ashlar::detail
