#include "cuda/cudnn_library.hpp"

#include <fmt/format.h>

#include "ashlar/error.hpp"
#include "cuda/shared_library.hpp"

namespace ashlar::cuda {
namespace {

constexpr const char* kRemedy = "install cuDNN 9 for CUDA 13 (package nvidia-cudnn-cu13)";
constexpr std::size_t kOldest = 91200;

}  // namespace

CudnnLibrary::CudnnLibrary(const std::string& file) {
  const SharedLibrary library(file, "cuDNN", kRemedy);
  handle = library.handle();
  library.get("cudnnGetVersion", get_version);
  library.get("cudnnGetErrorString", get_error_string);
  library.get("cudnnCreate", create);
  library.get("cudnnSetStream", set_stream);
  const std::size_t version = get_version();
  if (version < kOldest)
    throw CudaError(fmt::format("{} is cuDNN {}.{}, older than 9.12; {}", file, version / 10000,
                                version / 100 % 100, kRemedy));
}

const CudnnLibrary& CudnnLibrary::installed() {
  static const CudnnLibrary library("libcudnn.so.9");
  return library;
}

void CudnnLibrary::check(cudnnStatus_t status, std::string_view what,
                         std::source_location at) const {
  if (status == CUDNN_STATUS_SUCCESS) return;
  throw CudaError(fmt::format("{}:{}: cuDNN: {}: {}", at.file_name(), at.line(), what,
                              get_error_string(status)));
}

}  // namespace ashlar::cuda
