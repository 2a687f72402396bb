#include "cuda/check.hpp"

#include <fmt/format.h>

#include <string_view>

#include "ashlar/error.hpp"

namespace ashlar::cuda {
namespace {

[[noreturn]] void fail(std::string_view name, std::string_view meaning,
                       const std::source_location& where) {
  std::string_view file = where.file_name();
  if (const std::size_t room = file.rfind("cuda/"); room != std::string_view::npos)
    file = file.substr(room);
  throw CudaError(fmt::format("CUDA: {} ({}), at {}:{}", name, meaning, file, where.line()));
}

}  // namespace

void check(cudaError_t status, std::source_location where) {
  if (status == cudaSuccess) return;
  cudaGetLastError();
  fail(cudaGetErrorName(status), cudaGetErrorString(status), where);
}

void check(CUresult status, std::source_location where) {
  if (status == CUDA_SUCCESS) return;
  fail(fmt::format("driver error {}", static_cast<int>(status)),
       status == CUDA_ERROR_OUT_OF_MEMORY ? "out of memory" : "see CUresult in cuda.h", where);
}

}  // namespace ashlar::cuda
