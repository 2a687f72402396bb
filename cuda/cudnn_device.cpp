// cuDNN on the devices of this process.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <map>
#include <memory>
#include <mutex>
#include <set>

#include "ashlar/error.hpp"
#include "cuda/cudnn_graph.hpp"
#include "cuda/current_device.hpp"
#include "cuda/native_stream.hpp"

namespace ashlar::cuda {
namespace {

/// A handle, and a plan for every problem that was met. A handle serves one thread at a time.
class Cudnn : public AttentionLibrary {
 public:
  Cudnn(const CudnnLibrary& library, int device) : library_(library), device_(device) {
    library_.check(library_.create(&handle_), "cudnnCreate");
  }

  void run(const AttentionProblem& problem, const AttentionOperands& operands, std::byte* workspace,
           StreamRef stream) override {
    const auto native = static_cast<cudaStream_t>(native_stream(stream));
    const std::scoped_lock lock(mutex_);
    library_.check(library_.set_stream(handle_, native), "cudnnSetStream");
    graph_of(problem).run(handle_, operands, workspace);
  }

  /// As attention_plans() says.
  std::string plans() {
    const std::scoped_lock lock(mutex_);
    std::set<std::string> engines;
    for (const auto& [problem, graph] : graphs_)
      if (graph)
        engines.insert(
            fmt::format("{} {}", problem.backward ? "backward" : "forward", graph->engine()));
    return fmt::format("{}", fmt::join(engines, ", "));
  }

 private:
  const AttentionGraph& graph_of(const AttentionProblem& problem) {
    std::unique_ptr<const AttentionGraph>& graph = graphs_[problem];
    if (graph) return *graph;
    const CurrentDevice current(device_);
    auto made = std::make_unique<const AttentionGraph>(library_, problem, handle_);
    if (made->workspace() > library_bytes(problem))
      throw CudaError(fmt::format(
          "cuDNN {}: {} wants {} bytes of workspace, {} are planned: install cuDNN 9.19",
          library_.get_version(), describe(problem), made->workspace(), library_bytes(problem)));
    graph = std::move(made);
    return *graph;
  }

  const CudnnLibrary& library_;
  int device_;
  std::mutex mutex_;
  cudnnHandle_t handle_ = nullptr;
  std::map<AttentionProblem, std::unique_ptr<const AttentionGraph>> graphs_;
};

/// Null, which is said once, where cuDNN is not installed.
const CudnnLibrary* installed() {
  static const CudnnLibrary* const library = []() -> const CudnnLibrary* {
    try {
      return &CudnnLibrary::installed();
    } catch (const CudaError& error) {
      fmt::print(stderr, "ashlar: attention runs on kernels of our own, which are slower: {}\n",
                 error.what());
      return nullptr;
    }
  }();
  return library;
}

}  // namespace

AttentionLibrary* attention_library(StreamRef stream) {
  const CudnnLibrary* const library = installed();
  if (library == nullptr) return nullptr;
  static auto& devices = *new PerDevice<Cudnn>;
  const int device = device_of(stream);
  return &devices.of(device, [&] { return std::make_unique<Cudnn>(*library, device); });
}

std::string attention_plans(Device device) {
  const std::scoped_lock lock(devices().mutex);
  const auto found = devices().libraries.find(device.index);
  return found == devices().libraries.end() ? "" : found->second->plans();
}

}  // namespace ashlar::cuda
