// Streams and events of CUDA behind the handles of ashlar/device.hpp.
#include <fmt/format.h>

#include <exception>
#include <iterator>
#include <mutex>
#include <utility>
#include <vector>

#include "ashlar/error.hpp"
#include "cuda/current_device.hpp"
#include "cuda/native_stream.hpp"
#include "runtime/stream_state.hpp"

namespace ashlar {
namespace cuda {
namespace {

class CudaEvent final : public detail::EventState {
 public:
  explicit CudaEvent(cudaStream_t stream) {
    check(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming));
    if (const cudaError_t status = cudaEventRecord(event_, stream); status != cudaSuccess) {
      cudaEventDestroy(event_);
      check(status);
    }
  }
  ~CudaEvent() override { cudaEventDestroy(event_); }

  cudaEvent_t get() const { return event_; }
  bool done() const override {
    const cudaError_t status = cudaEventQuery(event_);
    if (status != cudaErrorNotReady) check(status);
    if (status == cudaErrorNotReady) cudaGetLastError();
    return status == cudaSuccess;
  }
  void wait() const override { check(cudaEventSynchronize(event_)); }

 private:
  cudaEvent_t event_ = nullptr;
};

class CudaStream final : public detail::StreamState {
 public:
  explicit CudaStream(int index) : StreamState({DeviceType::cuda, index}) {
    const CurrentDevice current(index);
    check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
  }
  CudaStream(int index, cudaStream_t borrowed)
      : StreamState({DeviceType::cuda, index}), stream_(borrowed), owned_(false) {}
  ~CudaStream() override {
    if (!owned_) return;
    cudaStreamSynchronize(stream_);
    cudaStreamDestroy(stream_);
  }

  cudaStream_t get() const { return stream_; }

  void enqueue(std::function<void()> work) override {
    const CurrentDevice current(device.index);
    cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    check(cudaStreamIsCapturing(stream_, &status));
    if (status != cudaStreamCaptureStatusNone && recording_ == nullptr)
      throw CudaError("work of the host cannot be recorded on a stream that others record");
    auto call = std::make_unique<HostCall>(HostCall{std::move(work), this, recording_ == nullptr});
    check(cudaLaunchHostFunc(stream_, &CudaStream::run, call.get()));
    if (recording_ != nullptr)
      recording_->calls.push_back(std::move(call));
    else
      call.release();  // run() owns it from here on
  }

  /// An event of the CPU holds up the caller, as a CUDA stream cannot wait for it.
  void wait(const std::shared_ptr<detail::EventState>& event) override {
    const CurrentDevice current(device.index);
    if (const auto* ours = dynamic_cast<const CudaEvent*>(event.get()))
      check(cudaStreamWaitEvent(stream_, ours->get(), 0));
    else
      event->wait();
  }

  std::shared_ptr<detail::EventState> record() override {
    const CurrentDevice current(device.index);
    return std::make_shared<CudaEvent>(stream_);
  }

  void synchronize() override {
    const CurrentDevice current(device.index);
    check(cudaStreamSynchronize(stream_));
    std::exception_ptr error;
    {
      const std::scoped_lock lock(mutex_);
      retired_.clear();
      error = std::exchange(error_, nullptr);
    }
    if (error) std::rethrow_exception(error);
  }

  void begin_recording() override {
    check(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal));
    recording_ = std::make_unique<Recording>(*this);
  }

  std::unique_ptr<detail::RecordingState> end_recording() override {
    std::unique_ptr<Recording> recording = std::exchange(recording_, nullptr);
    cudaGraph_t graph = nullptr;
    check(cudaStreamEndCapture(stream_, &graph));
    const cudaError_t status = cudaGraphInstantiate(&recording->graph, graph, 0);
    cudaGraphDestroy(graph);
    check(status);
    return recording;
  }
  bool recording() const override { return recording_ != nullptr; }

 private:
  struct HostCall {
    std::function<void()> work;
    CudaStream* stream;
    bool once;
  };

  /// A graph, and what its nodes on the host call.
  struct Recording final : detail::RecordingState {
    explicit Recording(CudaStream& on) : stream(on) {}
    ~Recording() override {
      if (graph != nullptr) cudaGraphExecDestroy(graph);
      stream.retire(calls);
    }
    void launch() override { check(cudaGraphLaunch(graph, stream.stream_)); }

    CudaStream& stream;
    cudaGraphExec_t graph = nullptr;
    std::vector<std::unique_ptr<HostCall>> calls;
  };

  /// A launch may still be on its way to them: they stay until the stream is empty.
  void retire(std::vector<std::unique_ptr<HostCall>>& calls) noexcept {
    const std::scoped_lock lock(mutex_);
    retired_.insert(retired_.end(), std::make_move_iterator(calls.begin()),
                    std::make_move_iterator(calls.end()));
  }

  static void run(void* data) {
    auto* const call = static_cast<HostCall*>(data);
    const std::unique_ptr<HostCall> owner(call->once ? call : nullptr);
    try {
      call->work();
    } catch (...) {
      const std::scoped_lock lock(call->stream->mutex_);
      if (!call->stream->error_) call->stream->error_ = std::current_exception();
    }
  }

  cudaStream_t stream_ = nullptr;
  bool owned_ = true;
  std::unique_ptr<Recording> recording_;  // while it lasts
  std::mutex mutex_;
  std::vector<std::unique_ptr<HostCall>> retired_;  // of recordings that are gone
  std::exception_ptr error_;
};

}  // namespace

void* native_stream(StreamRef stream) {
  if (stream.is_inline()) return cudaStreamLegacy;
  if (stream.device().type != DeviceType::cuda)
    throw InvalidArgument("a kernel of CUDA was called with a stream of the CPU");
  return static_cast<const CudaStream*>(stream.id())->get();
}

}  // namespace cuda

BorrowedStream::BorrowedStream(void* stream, Device device) {
  if (device.type != DeviceType::cuda)
    throw InvalidArgument("a stream of CUDA is borrowed for " + to_string(device));
  state_ = std::make_unique<cuda::CudaStream>(device.index, static_cast<cudaStream_t>(stream));
}
BorrowedStream::~BorrowedStream() = default;
BorrowedStream::BorrowedStream(BorrowedStream&&) noexcept = default;
BorrowedStream& BorrowedStream::operator=(BorrowedStream&&) noexcept = default;

namespace detail {

std::unique_ptr<StreamState> make_cuda_stream(int index) {
  return std::make_unique<cuda::CudaStream>(index);
}

void make_current(Device device) {
  if (device.type == DeviceType::cuda) cuda::check(cudaSetDevice(device.index));
}

int cuda_device_count() noexcept {
  int count = 0;
  if (cudaGetDeviceCount(&count) == cudaSuccess) return count;
  cudaGetLastError();
  return 0;
}

std::string why_no_cuda() {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status == cudaSuccess) return "the driver knows of no device";
  cudaGetLastError();
  return fmt::format("{} ({})", cudaGetErrorString(status), cudaGetErrorName(status));
}

}  // namespace detail
}  // namespace ashlar
