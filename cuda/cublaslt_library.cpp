#include "cuda/cublaslt_library.hpp"

#include <fmt/format.h>

#include "ashlar/error.hpp"
#include "cuda/shared_library.hpp"

namespace ashlar::cuda {

CublasLtLibrary::CublasLtLibrary(const std::string& file) {
  const SharedLibrary library(file, "cuBLASLt",
                              "install cuBLAS 13 (package libcublas-13-0 or nvidia-cublas)");
  library.get("cublasLtCreate", create);
  library.get("cublasLtDestroy", destroy);
  library.get("cublasLtGetVersion", get_version);
  library.get("cublasLtGetStatusName", get_status_name);
  library.get("cublasLtGetStatusString", get_status_string);
  library.get("cublasLtMatrixLayoutInit_internal", layout_init);
  library.get("cublasLtMatmulDescInit_internal", operation_init);
  library.get("cublasLtMatmulPreferenceInit_internal", preference_init);
  library.get("cublasLtMatrixLayoutSetAttribute", layout_set);
  library.get("cublasLtMatmulDescSetAttribute", operation_set);
  library.get("cublasLtMatmulPreferenceSetAttribute", preference_set);
  library.get("cublasLtMatmulAlgoGetHeuristic", get_heuristic);
  library.get("cublasLtMatmulAlgoCheck", algorithm_check);
  library.get("cublasLtMatmul", matmul);
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
