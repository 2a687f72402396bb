// cuBLASLt as a table of functions, loaded when the first product runs: a program starts without
// libcublasLt.so.13.
#pragma once

#include <cublasLt.h>

#include <source_location>
#include <string>
#include <string_view>

namespace ashlar::cuda {

struct CublasLtLibrary {
  /// @throws CudaError naming the file, and the function that it lacks.
  explicit CublasLtLibrary(const std::string& file);
  /// libcublasLt.so.13 as the dynamic linker finds it, loaded once.
  static const CublasLtLibrary& installed();

  /// @throws CudaError naming the caller's line, `what` failed, and cuBLASLt's reason.
  void check(cublasStatus_t status, std::string_view what,
             std::source_location at = std::source_location::current()) const;

  decltype(&cublasLtCreate) create;
  decltype(&cublasLtDestroy) destroy;
  decltype(&cublasLtGetVersion) get_version;
  decltype(&cublasLtGetStatusName) get_status_name;
  decltype(&cublasLtGetStatusString) get_status_string;
  // Descriptors live where the caller puts them, so that a product allocates nothing; the header's
  // inline cublasLt...Init functions call these three.
  decltype(&cublasLtMatrixLayoutInit_internal) layout_init;
  decltype(&cublasLtMatmulDescInit_internal) operation_init;
  decltype(&cublasLtMatmulPreferenceInit_internal) preference_init;
  decltype(&cublasLtMatrixLayoutSetAttribute) layout_set;
  decltype(&cublasLtMatmulDescSetAttribute) operation_set;
  decltype(&cublasLtMatmulPreferenceSetAttribute) preference_set;
  decltype(&cublasLtMatmulAlgoGetHeuristic) get_heuristic;
  decltype(&cublasLtMatmulAlgoCheck) algorithm_check;
  decltype(&cublasLtMatmul) matmul;
};

}  // namespace ashlar::cuda
