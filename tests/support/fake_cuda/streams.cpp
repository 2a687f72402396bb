// Devices, streams and events. Streams run when somebody waits for them, or as a test chooses.
#include <algorithm>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <utility>
#include <vector>

#include "support/fake_cuda/memory.hpp"

struct CUevent_st {
  struct Point {
    bool happened = true;
    CUstream_st* stream = nullptr;
  };
  int device;
  std::shared_ptr<Point> point = std::make_shared<Point>();
};

/// Calls of the host: all that the fake records.
struct CUgraph_st {
  std::vector<std::function<void()>> calls;
};
struct CUgraphExec_st : CUgraph_st {};

struct CUstream_st {
  struct Piece {
    std::function<void()> work;
    std::shared_ptr<CUevent_st::Point> before;
  };
  int device;
  std::deque<Piece> queue = {};
  std::unique_ptr<CUgraph_st> capture = {};

  bool advance(bool needed) {
    if (queue.empty()) return false;
    const auto before = queue.front().before;
    while (needed && before && !before->happened) before->stream->advance(true);
    if (before && !before->happened) return false;
    const auto work = std::move(queue.front().work);
    queue.pop_front();
    if (work) work();
    return true;
  }
  void drain() {
    while (advance(true)) {
    }
  }
};

namespace fake {
namespace {

std::map<int, CUstream_st> defaults;  // by device
std::set<CUstream_st*> streams;
cudaError_t pending = cudaSuccess;

CUstream_st& stream_of(cudaStream_t stream) {
  if (stream != nullptr && stream != cudaStreamLegacy) {
    if (!streams.contains(stream)) problem("a stream that does not live");
    return *stream;
  }
  const int device = fake_cuda()->current;
  return defaults.try_emplace(device, CUstream_st{device}).first->second;
}

}  // namespace

cudaError_t status(cudaError_t value) {
  if (value != cudaSuccess) pending = value;
  return value;
}
cudaError_t invalid(const std::string& text) {
  problem(text);
  return status(cudaErrorInvalidValue);
}
cudaError_t may_fail(cudaError_t how) {
  if (fake_cuda()->broken) return status(cudaErrorIllegalAddress);
  return fake_cuda()->calls++ == fake_cuda()->failing ? status(how) : cudaSuccess;
}

}  // namespace fake

using namespace fake;

extern "C" {

FakeCuda* fake_cuda() {
  static FakeCuda& fake = *new FakeCuda;  // outlives what lives until the end
  return &fake;
}

void fake_cuda_step(unsigned choice) {
  if (streams.empty()) return;
  auto stream = streams.begin();
  std::advance(stream, choice % streams.size());
  (*stream)->advance(false);
}

void fake_cuda_drain() {
  for (CUstream_st* stream : streams) stream->drain();
  for (auto& [device, stream] : defaults) stream.drain();
}

cudaError_t cudaGetLastError() { return std::exchange(pending, cudaSuccess); }
const char* cudaGetErrorName(cudaError_t) { return "cudaErrorFake"; }
const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaErrorIllegalAddress ? "an illegal memory access" : "the fake's error";
}

cudaError_t cudaGetDeviceCount(int* count) {
  *count = fake_cuda()->devices;
  return cudaSuccess;
}
cudaError_t cudaGetDevice(int* device) {
  *device = fake_cuda()->current;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
  if (device < 0 || device >= fake_cuda()->devices) return status(cudaErrorInvalidDevice);
  fake_cuda()->current = device;
  ++fake_cuda()->set;
  return cudaSuccess;
}
cudaError_t cudaDeviceCanAccessPeer(int* can, int from, int to) {
  if (from >= fake_cuda()->devices || to >= fake_cuda()->devices)
    return status(cudaErrorInvalidDevice);
  *can = from != to;
  return cudaSuccess;
}
cudaError_t cudaDeviceEnablePeerAccess(int, unsigned) { return cudaSuccess; }
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind,
                            cudaStream_t stream) {
  if (fake_cuda()->broken) return status(cudaErrorIllegalAddress);
  auto staging = std::make_shared<std::vector<char>>(bytes);
  const auto source = reinterpret_cast<Address>(from);
  const bool now = pageable(from);
  if (now) read(source, staging->data(), bytes);
  stream_of(stream).queue.push_back({[=] {
                                       if (!now) read(source, staging->data(), bytes);
                                       write(reinterpret_cast<Address>(to), staging->data(), bytes);
                                     },
                                     nullptr});
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* to, int value, std::size_t bytes, cudaStream_t stream) {
  if (fake_cuda()->broken) return status(cudaErrorIllegalAddress);
  stream_of(stream).queue.push_back(
      {[=] { fill(reinterpret_cast<Address>(to), value, bytes); }, nullptr});
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = new CUstream_st{fake_cuda()->current};
  streams.insert(*stream);
  ++fake_cuda()->streams;
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  stream->drain();
  if (streams.erase(stream) == 0) return invalid("cudaStreamDestroy: no such stream");
  delete stream;
  --fake_cuda()->streams;
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  if (fake_cuda()->broken) return status(cudaErrorIllegalAddress);
  stream_of(stream).drain();
  return cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  if (const cudaError_t failed = may_fail()) return failed;
  if (!fake_cuda()->lose_waits) stream_of(stream).queue.push_back({{}, event->point});
  return cudaSuccess;
}
cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void* data) {
  if (const cudaError_t failed = may_fail()) return failed;
  CUstream_st& on = stream_of(stream);
  if (on.capture)
    on.capture->calls.emplace_back([=] { function(data); });
  else
    on.queue.push_back({[=] { function(data); }, nullptr});
  return cudaSuccess;
}

// Of recordings only the host's calls: all else is the late device's to test (late_device.hpp).
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* state) {
  *state = stream_of(stream).capture ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
  return cudaSuccess;
}
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  stream_of(stream).capture = std::make_unique<CUgraph_st>();
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  *graph = stream_of(stream).capture.release();
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* made, cudaGraph_t graph, unsigned long long) {
  *made = new CUgraphExec_st{*graph};
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t stream) {
  for (const auto& call : graph->calls) stream_of(stream).queue.push_back({call, nullptr});
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph) {
  delete graph;
  return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  if (const cudaError_t failed = may_fail()) return failed;
  *event = new CUevent_st{fake_cuda()->current};
  ++fake_cuda()->events;
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  --fake_cuda()->events;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t on) {
  CUstream_st& stream = stream_of(on);
  if (stream.device != event->device) return invalid("an event of another device than its stream");
  if (const cudaError_t failed = may_fail()) return failed;
  event->point = std::make_shared<CUevent_st::Point>(CUevent_st::Point{false, &stream});
  stream.queue.push_back({[point = event->point] { point->happened = true; }, nullptr});
  return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
  if (fake_cuda()->broken) return status(cudaErrorIllegalAddress);
  return event->point->happened ? cudaSuccess : status(cudaErrorNotReady);
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  if (fake_cuda()->broken) return status(cudaErrorIllegalAddress);
  while (!event->point->happened) event->point->stream->advance(true);
  return cudaSuccess;
}

}  // extern "C"
