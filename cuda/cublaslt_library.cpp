#include "cuda/cublaslt_library.hpp"

#include <dlfcn.h>
#include <fmt/format.h>

#include "ashlar/error.hpp"

namespace ashlar::cuda {
namespace {

constexpr const char* kRemedy = "install cuBLAS 13 (package libcublas-13-0 or nvidia-cublas)";

void* open(const std::string& file) {
  void* library = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr)
    throw CudaError(
        fmt::format("cuBLASLt could not be loaded: {}; {}, or add its folder to "
                    "LD_LIBRARY_PATH",
                    dlerror(), kRemedy));
  return library;
}

template <typename Function>
void find(void* library, const std::string& file, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  if (function == nullptr) throw CudaError(fmt::format("{} has no {}; {}", file, name, kRemedy));
}

}  // namespace

CublasLtLibrary::CublasLtLibrary(const std::string& file) {
  void* library = open(file);
  const auto get = [&](const char* name, auto& function) { find(library, file, name, function); };
  get("cublasLtCreate", create);
  get("cublasLtDestroy", destroy);
  get("cublasLtGetVersion", get_version);
  get("cublasLtGetStatusName", get_status_name);
  get("cublasLtGetStatusString", get_status_string);
  get("cublasLtMatrixLayoutInit_internal", layout_init);
  get("cublasLtMatmulDescInit_internal", operation_init);
  get("cublasLtMatmulPreferenceInit_internal", preference_init);
  get("cublasLtMatrixLayoutSetAttribute", layout_set);
  get("cublasLtMatmulDescSetAttribute", operation_set);
  get("cublasLtMatmulPreferenceSetAttribute", preference_set);
  get("cublasLtMatmulAlgoGetHeuristic", get_heuristic);
  get("cublasLtMatmulAlgoCheck", algorithm_check);
  get("cublasLtMatmul", matmul);
}

const CublasLtLibrary& CublasLtLibrary::installed() {
  static const CublasLtLibrary library("libcublasLt.so.13");
  return library;
}

void CublasLtLibrary::check(cublasStatus_t status, std::string_view what,
                            std::source_location at) const {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  throw CudaError(fmt::format("{}:{}: cuBLASLt: {}: {} ({})", at.file_name(), at.line(), what,
                              get_status_string(status), get_status_name(status)));
}

}  // namespace ashlar::cuda
