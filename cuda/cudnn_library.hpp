// cuDNN, loaded when the first attention on a GPU runs: a program starts without libcudnn.so.9.
#pragma once

#include <cudnn_graph.h>

#include <source_location>
#include <string>
#include <string_view>

namespace ashlar::cuda {

struct CudnnLibrary {
  /// @throws CudaError naming the file and the function that it lacks, or a version older than 9.12
  /// (whose forward does not honour the strides of the row sums).
  explicit CudnnLibrary(const std::string& file);
  /// libcudnn.so.9 as the dynamic linker finds it, loaded once. @throws CudaError.
  static const CudnnLibrary& installed();

  /// @throws CudaError naming the caller's line, `what` failed, and cuDNN's reason.
  void check(cudnnStatus_t status, std::string_view what,
             std::source_location at = std::source_location::current()) const;

  void* handle;  // of dlopen, for the frontend
  decltype(&cudnnGetVersion) get_version;
  decltype(&cudnnGetErrorString) get_error_string;
  decltype(&cudnnCreate) create;
  decltype(&cudnnSetStream) set_stream;
};

}  // namespace ashlar::cuda
