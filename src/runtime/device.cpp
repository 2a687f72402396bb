// The handles of ashlar/device.hpp, whatever device stands behind them.
#include "ashlar/device.hpp"

#include <fmt/format.h>

#include "ashlar/error.hpp"
#include "base/parse_number.hpp"
#include "runtime/stream_state.hpp"

namespace ashlar {
namespace detail {

void StreamState::begin_recording() { throw Error("work of the CPU's streams cannot be recorded"); }
std::unique_ptr<RecordingState> StreamState::end_recording() { return nullptr; }

std::unique_ptr<StreamState> make_stream(Device device) {
  return device.type == DeviceType::cpu ? make_cpu_stream() : make_cuda_stream(device.index);
}

}  // namespace detail

int device_count(DeviceType type) noexcept {
  return type == DeviceType::cpu ? 1 : detail::cuda_device_count();
}

std::string to_string(Device device) {
  return device.type == DeviceType::cpu ? "cpu" : fmt::format("cuda:{}", device.index);
}

Device parse_device(std::string_view text) {
  if (text == "cpu") return {};
  Device device{DeviceType::cuda, 0};
  const bool numbered = text.starts_with("cuda:");
  if (text != "cuda" &&
      !(numbered && parse_number(text.substr(5), device.index) && device.index >= 0))
    throw InvalidArgument(
        fmt::format("there is no device '{}': cpu, cuda or cuda:0, cuda:1, …", text));
  const int count = device_count(DeviceType::cuda);
  if (count == 0)
    throw InvalidArgument(fmt::format("no CUDA device was found: {}", detail::why_no_cuda()));
  if (device.index >= count)
    throw InvalidArgument(
        fmt::format("there is no device '{}': the last one here is cuda:{}", text, count - 1));
  return device;
}

Device StreamRef::device() const { return is_inline() ? Device{} : state_->device; }

void StreamRef::enqueue(std::function<void()> work) const {
  if (is_inline())
    work();
  else
    state_->enqueue(std::move(work));
}

void StreamRef::wait(const Event& event) const {
  if (event.state_ == nullptr) return;
  if (is_inline())
    event.wait();
  else
    state_->wait(event.state_);
}

Event StreamRef::record() const { return is_inline() ? Event() : Event(state_->record()); }

void StreamRef::synchronize() const {
  if (!is_inline()) state_->synchronize();
}

Stream::Stream(Device device) : state_(detail::make_stream(device)) {}
Stream::~Stream() = default;
Stream::Stream(Stream&&) noexcept = default;
Stream& Stream::operator=(Stream&&) noexcept = default;

bool Event::done() const { return state_ == nullptr || state_->done(); }

void Event::wait() const {
  if (state_ != nullptr) state_->wait();
}

}  // namespace ashlar
