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
    graphs_.at(problem)->run(handle_, operands, workspace);
  }

  bool serves(const AttentionProblem& problem) override {
    const std::scoped_lock lock(mutex_);
    auto graph = graphs_.find(problem);
    if (graph == graphs_.end()) graph = graphs_.emplace(problem, planned(problem)).first;
    return graph->second != nullptr;
  }

  std::string plan(const AttentionProblem& problem) override {
    const std::scoped_lock lock(mutex_);
    return fmt::format("cuDNN {} {}", library_.get_version(), graphs_.at(problem)->engine());
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
  /// Null, which is said, where there is no plan within the planned workspace.
  std::unique_ptr<const AttentionGraph> planned(const AttentionProblem& problem) const try {
    const CurrentDevice current(device_);
    auto graph = std::make_unique<const AttentionGraph>(library_, problem, handle_);
    if (graph->workspace() > library_bytes(problem))
      throw CudaError(fmt::format("it wants {} bytes of workspace, {} are planned (by cuDNN 9.19)",
                                  graph->workspace(), library_bytes(problem)));
    return graph;
  } catch (const CudaError& error) {
    fmt::print(stderr, "ashlar: {} runs on kernels of our own, which are slower: cuDNN {}: {}\n",
               describe(problem), library_.get_version(), error.what());
    return nullptr;
  }

  const CudnnLibrary& library_;
  int device_;
  std::mutex mutex_;
  cudnnHandle_t handle_ = nullptr;
  std::map<AttentionProblem, std::unique_ptr<const AttentionGraph>> graphs_;  // null: ours
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

PerDevice<Cudnn>& devices() {
  static auto& instance = *new PerDevice<Cudnn>;
  return instance;
}

}  // namespace

AttentionLibrary* attention_library(StreamRef stream) {
  const CudnnLibrary* const library = installed();
  if (library == nullptr) return nullptr;
  const int device = device_of(stream);
  return &devices().of(device, [&] { return std::make_unique<Cudnn>(*library, device); });
}

std::string attention_plans(Device device) {
  Cudnn* const cudnn = devices().find(device.index);
  return cudnn == nullptr ? "" : cudnn->plans();
}

}  // namespace ashlar::cuda
