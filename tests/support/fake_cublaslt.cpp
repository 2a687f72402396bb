// libcublasLt.so.13 on host memory: the functions that Ashlar calls.
#include "fake_cublaslt.hpp"

#include <cublasLt.h>

#include <cstring>

#include "fake_cublaslt_problem.hpp"

namespace {

using namespace fake_cublaslt_problem;

FakeCublasLt state;

struct Handle {
  std::uint32_t magic = kHandle;
  std::int32_t first_way = state.first_way;
};

/// Stores an attribute whose size must be that of `to`.
template <typename T>
cublasStatus_t store(T& to, const void* from, std::size_t bytes) {
  if (from == nullptr || bytes != sizeof(T)) return CUBLAS_STATUS_INVALID_VALUE;
  std::memcpy(&to, from, sizeof(T));
  return CUBLAS_STATUS_SUCCESS;
}

/// Pointers as the algorithm was promised them.
cublasStatus_t check_pointers(const Algorithm& algorithm, const Call& call, const void* workspace,
                              std::size_t bytes) {
  const Operation& operation = call.problem.operation;
  if (call.a == nullptr || call.b == nullptr || call.d == nullptr ||
      (call.beta != 0 && call.c == nullptr))
    return CUBLAS_STATUS_INVALID_VALUE;
  if (algorithm.workspace > bytes || (algorithm.workspace > 0 && !aligned(workspace, 256)))
    return CUBLAS_STATUS_INVALID_VALUE;
  if (operation.epilogue != CUBLASLT_EPILOGUE_DEFAULT && operation.bias == nullptr)
    return CUBLAS_STATUS_INVALID_VALUE;
  // The preference says nothing of these; kernels move 16 bytes of them at a time.
  if (!aligned(operation.bias, 16) || !aligned(operation.aux, 16))
    return CUBLAS_STATUS_EXECUTION_FAILED;
  const void* pointers[] = {call.a, call.b, call.c, call.d};
  for (int i = 0; i < 4; ++i)
    if (!aligned(pointers[i], algorithm.alignments[i])) return CUBLAS_STATUS_NOT_SUPPORTED;
  return CUBLAS_STATUS_SUCCESS;
}

/// What an algorithm writes to its workspace: the first bytes and the last.
void use(void* workspace, std::uint64_t bytes) {
  const std::uint64_t part = bytes < 4096 ? bytes : 4096;
  std::memset(workspace, 0x5a, part);
  std::memset(static_cast<char*>(workspace) + bytes - part, 0x5a, part);
}

}  // namespace

extern "C" {

FakeCublasLt* fake_cublaslt() { return &state; }

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  if (const int result = state.create_result; result != 0)
    return static_cast<cublasStatus_t>(result);
  *handle = reinterpret_cast<cublasLtHandle_t>(new Handle);
  ++state.handles;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
  delete reinterpret_cast<Handle*>(handle);
  --state.handles;
  return CUBLAS_STATUS_SUCCESS;
}
std::size_t cublasLtGetVersion() { return CUBLAS_VERSION; }
const char* cublasLtGetStatusName(cublasStatus_t status) {
  if (status == CUBLAS_STATUS_NOT_INITIALIZED) return "CUBLAS_STATUS_NOT_INITIALIZED";
  if (status == CUBLAS_STATUS_NOT_SUPPORTED) return "CUBLAS_STATUS_NOT_SUPPORTED";
  if (status == CUBLAS_STATUS_INVALID_VALUE) return "CUBLAS_STATUS_INVALID_VALUE";
  return "CUBLAS_STATUS_EXECUTION_FAILED";
}
const char* cublasLtGetStatusString(cublasStatus_t) { return "the fake says so"; }

cublasStatus_t cublasLtMatrixLayoutInit_internal(cublasLtMatrixLayout_t layout, std::size_t size,
                                                 cudaDataType type, std::uint64_t rows,
                                                 std::uint64_t columns, std::int64_t leading) {
  if (size < sizeof(Layout)) return CUBLAS_STATUS_ALLOC_FAILED;
  as<Layout>(layout) = {kLayout, type, rows, columns, leading, 0, 1, CUBLASLT_ORDER_COL};
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t layout,
                                                cublasLtMatrixLayoutAttribute_t name,
                                                const void* value, std::size_t size) {
  Layout& l = as<Layout>(layout);
  if (name == CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT) return store(l.batch, value, size);
  if (name == CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET) return store(l.stride, value, size);
  if (name == CUBLASLT_MATRIX_LAYOUT_ORDER) return store(l.order, value, size);
  return CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasLtMatmulDescInit_internal(cublasLtMatmulDesc_t operation, std::size_t size,
                                               cublasComputeType_t compute, cudaDataType_t scale) {
  if (size < sizeof(Operation)) return CUBLAS_STATUS_ALLOC_FAILED;
  as<Operation>(operation) = {
      kOperation, compute, scale, CUBLAS_OP_N, CUBLAS_OP_N, CUBLASLT_EPILOGUE_DEFAULT, -1,
      nullptr,    nullptr, 0};
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t operation,
                                              cublasLtMatmulDescAttributes_t name,
                                              const void* value, std::size_t size) {
  Operation& o = as<Operation>(operation);
  if (name == CUBLASLT_MATMUL_DESC_TRANSA) return store(o.transpose_a, value, size);
  if (name == CUBLASLT_MATMUL_DESC_TRANSB) return store(o.transpose_b, value, size);
  if (name == CUBLASLT_MATMUL_DESC_EPILOGUE) return store(o.epilogue, value, size);
  if (name == CUBLASLT_MATMUL_DESC_BIAS_POINTER) return store(o.bias, value, size);
  if (name == CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE) return store(o.bias_type, value, size);
  if (name == CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER) return store(o.aux, value, size);
  if (name == CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD) return store(o.aux_leading, value, size);
  return CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasLtMatmulPreferenceInit_internal(cublasLtMatmulPreference_t preference,
                                                     std::size_t size) {
  if (size < sizeof(Preference)) return CUBLAS_STATUS_ALLOC_FAILED;
  as<Preference>(preference) = {
      kPreference, CUBLASLT_REDUCTION_SCHEME_MASK, 0, {256, 256, 256, 256}};
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t name,
                                                    const void* value, std::size_t size) {
  Preference& p = as<Preference>(preference);
  if (name == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES) return store(p.workspace, value, size);
  if (name == CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK) return store(p.reductions, value, size);
  if (name >= CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES &&
      name <= CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES)
    return store(p.alignments[name - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES], value, size);
  return CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle,
                                              cublasLtMatmulDesc_t operation,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int wanted,
                                              cublasLtMatmulHeuristicResult_t results[],
                                              int* count) {
  *count = 0;
  if (handle == nullptr || wanted < 1) return CUBLAS_STATUS_INVALID_VALUE;
  const Problem problem = problem_of(operation, a, b, c, d);
  const Preference& p = as<Preference>(preference);
  if (p.magic != kPreference) return CUBLAS_STATUS_INVALID_VALUE;
  if (const cublasStatus_t status = problem.check(); status != CUBLAS_STATUS_SUCCESS) return status;
  if (const int refused = state.gradient_result; refused != 0 && problem.writes_bias())
    return static_cast<cublasStatus_t>(refused);
  if (state.no_algorithm) return CUBLAS_STATUS_SUCCESS;  // and no results
  const std::int64_t needed = state.workspace;
  const std::uint64_t workspace = needed < 0 ? p.workspace : static_cast<std::uint64_t>(needed);
  if (workspace > p.workspace) return CUBLAS_STATUS_SUCCESS;
  for (; *count < wanted && *count < state.candidates; ++*count) {
    cublasLtMatmulHeuristicResult_t& result = results[*count];
    const std::int32_t way = reinterpret_cast<Handle*>(handle)->first_way + *count;
    Algorithm algorithm{kAlgorithm, ++state.heuristics, problem.hash(), workspace, {}, way};
    std::memcpy(algorithm.alignments, p.alignments, sizeof p.alignments);
    result = {};
    as<Algorithm>(&result.algo) = algorithm;
    result.workspaceSize = workspace;
    result.state = CUBLAS_STATUS_SUCCESS;
  }
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t, cublasLtMatmulDesc_t operation,
                                       cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                       cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                       const cublasLtMatmulAlgo_t* algo,
                                       cublasLtMatmulHeuristicResult_t* result) {
  const Problem problem = problem_of(operation, a, b, c, d);
  const auto& algorithm = as<const Algorithm>(algo);
  if (algorithm.magic != kAlgorithm) return CUBLAS_STATUS_INVALID_VALUE;
  if (algorithm.problem != problem.hash()) return CUBLAS_STATUS_NOT_SUPPORTED;
  *result = {};
  result->algo = *algo;
  result->workspaceSize = algorithm.workspace;
  result->state = CUBLAS_STATUS_SUCCESS;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t operation,
                              const void* alpha, const void* a, cublasLtMatrixLayout_t a_layout,
                              const void* b, cublasLtMatrixLayout_t b_layout, const void* beta,
                              const void* c, cublasLtMatrixLayout_t c_layout, void* d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t* algo,
                              void* workspace, std::size_t bytes, cudaStream_t) {
  if (const int result = state.matmul_result; result != 0)
    return static_cast<cublasStatus_t>(result);
  if (handle == nullptr || reinterpret_cast<Handle*>(handle)->magic != kHandle)
    return CUBLAS_STATUS_NOT_INITIALIZED;
  if (alpha == nullptr || beta == nullptr || algo == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
  const Problem problem = problem_of(operation, a_layout, b_layout, c_layout, d_layout);
  const auto& algorithm = as<const Algorithm>(algo);
  if (const cublasStatus_t status = problem.check(); status != CUBLAS_STATUS_SUCCESS) return status;
  if (algorithm.magic != kAlgorithm) return CUBLAS_STATUS_INVALID_VALUE;
  if (algorithm.problem != problem.hash()) return CUBLAS_STATUS_NOT_SUPPORTED;
  const Call call{problem,
                  a,
                  b,
                  c,
                  d,
                  double{*static_cast<const float*>(alpha)},
                  double{*static_cast<const float*>(beta)},
                  algorithm.way};
  if (const cublasStatus_t status = check_pointers(algorithm, call, workspace, bytes);
      status != CUBLAS_STATUS_SUCCESS)
    return status;
  use(workspace, algorithm.workspace);
  for (std::int64_t item = 0; item < problem.d.batch; ++item) call.multiply(item);
  ++state.products;
  state.fused_biases += problem.operation.epilogue == CUBLASLT_EPILOGUE_BIAS;
  state.fused_gradients += problem.writes_bias();
  state.last_algorithm = algorithm.id;
  state.last_way = algorithm.way;
  return CUBLAS_STATUS_SUCCESS;
}

}  // extern "C"
