// cuBLASLt's matrices are column-major, and its row-major order has no fused bias: so it is given
// C^T = op(B)^T op(A)^T, whose operands are ours with A and B exchanged and rows called columns.
#include "cuda/cublaslt.hpp"

#include <fmt/format.h>

#include <bit>

#include "ashlar/error.hpp"

namespace ashlar::cuda {
namespace {

cudaDataType_t type_of(DType dtype) {
  if (dtype == DType::f32) return CUDA_R_32F;
  if (dtype == DType::bf16) return CUDA_R_16BF;
  throw InvalidArgument("on CUDA products are of f32 and bf16, not of " +
                        std::string(name_of(dtype)) + ": cast first, or run on the CPU");
}

}  // namespace

/// The library's descriptors of one product.
class CublasLt::Descriptors {
 public:
  Descriptors(const CublasLtLibrary& library, const Product& product,
              const ProductOperands& operands)
      : library_(library) {
    const Gemm& g = product.gemm;
    const auto stored = [](bool transposed, std::int64_t rows, std::int64_t columns) {
      return transposed ? std::pair(columns, rows) : std::pair(rows, columns);
    };
    layout(left, g.dtype, stored(g.transpose_b, g.k, g.n), g.ldb, product.batch, product.stride_b);
    layout(right, g.dtype, stored(g.transpose_a, g.m, g.k), g.lda, product.batch, product.stride_a);
    layout(result, g.result, {g.m, g.n}, g.ldc, product.batch, product.stride_c);
    library.check(
        library.operation_init(&operation, sizeof operation, CUBLAS_COMPUTE_32F, CUDA_R_32F),
        "descriptor of a product");
    set(CUBLASLT_MATMUL_DESC_TRANSA, g.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N);
    set(CUBLASLT_MATMUL_DESC_TRANSB, g.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N);
    if (g.bias) {
      set(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
      set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, operands.bias);
      set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, static_cast<std::int32_t>(type_of(g.dtype)));
    }
    if (product.epilogue != Epilogue::none) gradients(product, operands);
  }

  cublasLtMatmulDescOpaque_t operation;
  cublasLtMatrixLayoutOpaque_t left, right, result;

 private:
  /// The library's first operand is our B, its rows our columns. Sums have the result's type.
  void gradients(const Product& product, const ProductOperands& operands) {
    const bool gelu = product.epilogue == Epilogue::gelu_backward;
    set(CUBLASLT_MATMUL_DESC_EPILOGUE,
        gelu ? CUBLASLT_EPILOGUE_DGELU_BGRAD : CUBLASLT_EPILOGUE_BGRADA);
    set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, operands.bias_gradient);
    if (!gelu) return;
    set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, operands.h);
    set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, product.gemm.n);
  }
  /// A row-major (rows, columns) matrix: the library's column-major (columns, rows).
  void layout(cublasLtMatrixLayoutOpaque_t& to, DType dtype,
              std::pair<std::int64_t, std::int64_t> extents, std::int64_t leading,
              std::int64_t batch, std::int64_t stride) {
    const auto [rows, columns] = extents;
    library_.check(
        library_.layout_init(&to, sizeof to, type_of(dtype), static_cast<std::uint64_t>(columns),
                             static_cast<std::uint64_t>(rows), leading),
        "layout of a matrix");
    const auto count = static_cast<std::int32_t>(batch);
    set(to, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, count);
    set(to, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, stride);
  }
  template <typename T>
  void set(cublasLtMatrixLayoutOpaque_t& to, cublasLtMatrixLayoutAttribute_t name, const T& value) {
    library_.check(library_.layout_set(&to, name, &value, sizeof value), "layout of a matrix");
  }
  template <typename T>
  void set(cublasLtMatmulDescAttributes_t name, const T& value) {
    library_.check(library_.operation_set(&operation, name, &value, sizeof value),
                   "descriptor of a product");
  }

  const CublasLtLibrary& library_;
};

namespace {

/// Partial sums of a split product are added in f32, so that a result is rounded once.
cublasLtMatmulPreferenceOpaque_t preference_of(const CublasLtLibrary& library,
                                               const Product& product) {
  cublasLtMatmulPreferenceOpaque_t preference;
  const auto check = [&](cublasStatus_t status) { library.check(status, "preference"); };
  const auto set = [&](cublasLtMatmulPreferenceAttributes_t name, auto value) {
    check(library.preference_set(&preference, name, &value, sizeof value));
  };
  check(library.preference_init(&preference, sizeof preference));
  set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, static_cast<std::uint64_t>(kLibraryBytes));
  set(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
      static_cast<std::uint32_t>(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE));
  const auto bytes = [&](DType dtype) {
    return static_cast<std::uint32_t>(product.aligned ? kOperandAlignment : size_of(dtype));
  };
  const std::uint32_t in = bytes(product.gemm.dtype), out = bytes(product.gemm.result);
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, in);
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, in);
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, out);
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, out);
  return preference;
}

/// In the place of operands that are not known yet; the library may look at their alignment.
std::byte* const kSomeByte = reinterpret_cast<std::byte*>(kLibraryAlignment);
const ProductOperands kSomewhere = {.bias = kSomeByte, .bias_gradient = kSomeByte, .h = kSomeByte};

/// Whether the library may have no algorithm for it.
bool may_lack(const Product& product) { return product.epilogue != Epilogue::none; }

}  // namespace

CublasLt::CublasLt(const CublasLtLibrary& library, int sm, Algorithms& algorithms)
    : library_(library), algorithms_(algorithms), sm_(sm) {
  library_.check(library_.create(&handle_), "cublasLtCreate");
}

CublasLt::~CublasLt() { library_.destroy(handle_); }

AlgorithmKey CublasLt::key_of(const Product& product) const {
  return {product, sm_, library_.get_version()};
}

AlgorithmEntry CublasLt::choose(const Product& product, const AlgorithmWords* given) const {
  Descriptors d(library_, product, kSomewhere);
  return {key_of(product), choose(product, d, given)};
}

std::vector<AlgorithmEntry> CublasLt::candidates(const Product& product, int count) const {
  Descriptors d(library_, product, kSomewhere);
  std::vector<AlgorithmEntry> entries;
  for (const AlgorithmWords& words : heuristics(product, d, count))
    entries.push_back({key_of(product), words});
  return entries;
}

AlgorithmWords CublasLt::choose(const Product& product, Descriptors& d,
                                const AlgorithmWords* given) const {
  const std::string_view whose = given != nullptr ? "rank 0's" : "the committed table's";
  return algorithms_.choose(
      key_of(product), given,
      [&](const AlgorithmWords& words) { require_works(product, d, words, whose); },
      [&] {
        const std::vector<AlgorithmWords> found = heuristics(product, d, 1);
        return found.empty() ? kNoAlgorithm : found.front();
      });
}

void CublasLt::require_works(const Product& product, Descriptors& d, const AlgorithmWords& words,
                             std::string_view whose) const {
  if (may_lack(product) && words == kNoAlgorithm) return;
  const auto algorithm = std::bit_cast<cublasLtMatmulAlgo_t>(words);
  cublasLtMatmulHeuristicResult_t found = {};
  const std::string what = fmt::format("{} algorithm for {}", whose, describe(product));
  library_.check(library_.algorithm_check(handle_, &d.operation, &d.left, &d.right, &d.result,
                                          &d.result, &algorithm, &found),
                 what);
  if (found.workspaceSize > static_cast<std::size_t>(kLibraryBytes))
    throw CudaError("cuBLASLt: " + what + " needs more than the 32 MiB that are planned");
}

std::vector<AlgorithmWords> CublasLt::heuristics(const Product& product, Descriptors& d,
                                                 int count) const {
  cublasLtMatmulPreferenceOpaque_t preference = preference_of(library_, product);
  std::vector<cublasLtMatmulHeuristicResult_t> results(static_cast<std::size_t>(count));
  int found = 0;
  const std::string what = "no algorithm for " + describe(product);
  cublasStatus_t status =
      library_.get_heuristic(handle_, &d.operation, &d.left, &d.right, &d.result, &d.result,
                             &preference, count, results.data(), &found);
  if (status == CUBLAS_STATUS_SUCCESS)
    status = found == 0 ? CUBLAS_STATUS_NOT_SUPPORTED : results[0].state;
  std::vector<AlgorithmWords> words;
  for (int i = 0; i < found; ++i) {
    const cublasLtMatmulHeuristicResult_t& result = results[static_cast<std::size_t>(i)];
    if (result.state == CUBLAS_STATUS_SUCCESS)
      words.push_back(std::bit_cast<AlgorithmWords>(result.algo));
  }
  const bool lacks = status == CUBLAS_STATUS_NOT_SUPPORTED || status == CUBLAS_STATUS_INVALID_VALUE;
  if (words.empty() && !(may_lack(product) && lacks)) library_.check(status, what);
  return words;
}

bool CublasLt::multiply(const Product& product, const ProductOperands& operands,
                        std::byte* workspace, cudaStream_t stream) const {
  Descriptors d(library_, product, operands);
  const AlgorithmWords words = choose(product, d, nullptr);
  if (may_lack(product) && words == kNoAlgorithm) return false;
  const auto algorithm = std::bit_cast<cublasLtMatmulAlgo_t>(words);
  const float one = 1, before = product.gemm.accumulate ? 1 : 0;
  const cublasStatus_t status =
      library_.matmul(handle_, &d.operation, &one, operands.b, &d.left, operands.a, &d.right,
                      &before, operands.c, &d.result, operands.c, &d.result, &algorithm,
                      aligned_up(workspace), static_cast<std::size_t>(kLibraryBytes), stream);
  if (status != CUBLAS_STATUS_SUCCESS) library_.check(status, describe(product));
  return true;
}

}  // namespace ashlar::cuda
