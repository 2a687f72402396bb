// A product as the fake libcublasLt.so.13 understands it: descriptors, what the library refuses,
// and sums in double on host memory (cuBLAS 13 documentation, cublasLtMatmul).
#pragma once

#include <cublasLt.h>

#include <cmath>
#include <cstdint>
#include <numbers>
#include <type_traits>

#include "ashlar/dtype.hpp"

namespace fake_cublaslt_problem {

inline constexpr std::uint32_t kHandle = 0x10dd1e, kLayout = 0x1a707, kOperation = 0x09e2a,
                               kPreference = 0x92efe, kAlgorithm = 0xa190;

struct Layout {
  std::uint32_t magic;
  cudaDataType_t type;
  std::uint64_t rows, columns;
  std::int64_t leading, stride;
  std::int32_t batch;
  std::int32_t order;
};

struct Operation {
  std::uint32_t magic;
  cublasComputeType_t compute;
  cudaDataType_t scale;
  std::int32_t transpose_a, transpose_b;
  std::uint32_t epilogue;
  std::int32_t bias_type;
  void* bias;
  const void* aux;
  std::int64_t aux_leading;
};

struct Preference {
  std::uint32_t magic;
  std::uint32_t reductions;
  std::uint64_t workspace;
  std::uint32_t alignments[4];  // A, B, C, D
};

/// What stands in a cublasLtMatmulAlgo_t: an algorithm knows what it was chosen for.
struct Algorithm {
  std::uint32_t magic;
  std::int32_t id;
  std::uint64_t problem;
  std::uint64_t workspace;
  std::uint32_t alignments[4];
  std::int32_t way;  // of adding
};

template <typename State, typename Opaque>
State& as(Opaque* opaque) {
  static_assert(sizeof(State) <= sizeof(Opaque) && std::is_trivially_copyable_v<State>);
  return *reinterpret_cast<State*>(opaque);
}

inline double load(const void* data, cudaDataType_t type, std::int64_t i) {
  if (type == CUDA_R_16BF) return static_cast<const ashlar::bf16*>(data)[i];
  return double{static_cast<const float*>(data)[i]};
}
inline void save(void* data, cudaDataType_t type, std::int64_t i, double value) {
  if (type == CUDA_R_16BF) {
    static_cast<ashlar::bf16*>(data)[i] = ashlar::bf16(static_cast<float>(value));
  } else {
    static_cast<float*>(data)[i] = static_cast<float>(value);
  }
}

/// The slope of x (1 + tanh u) / 2, u = sqrt(2/pi) (x + 0.044715 x^3).
inline double gelu_slope(double x) {
  const double root = std::sqrt(2 / std::numbers::pi);
  const double t = std::tanh(root * (x + 0.044715 * x * x * x));
  return (1 + t) / 2 + x * (1 - t * t) / 2 * root * (1 + 3 * 0.044715 * x * x);
}

inline bool valid(const Layout& l) {
  return l.magic == kLayout && l.rows > 0 && l.columns > 0 && l.batch > 0 &&
         l.order == CUBLASLT_ORDER_COL && l.leading >= static_cast<std::int64_t>(l.rows);
}

struct Problem {
  const Operation& operation;
  const Layout &a, &b, &c, &d;

  bool transposed_a() const { return operation.transpose_a == CUBLAS_OP_T; }
  bool transposed_b() const { return operation.transpose_b == CUBLAS_OP_T; }
  std::uint64_t inner() const { return transposed_a() ? a.rows : a.columns; }

  cublasStatus_t check() const {
    if (operation.magic != kOperation) return CUBLAS_STATUS_INVALID_VALUE;
    for (const Layout* l : {&a, &b, &c, &d})
      if (!valid(*l) || l->batch != d.batch) return CUBLAS_STATUS_INVALID_VALUE;
    const bool fits = (transposed_a() ? a.columns : a.rows) == d.rows &&
                      (transposed_b() ? b.rows : b.columns) == d.columns &&
                      (transposed_b() ? b.columns : b.rows) == inner() && c.rows == d.rows &&
                      c.columns == d.columns && c.type == d.type;
    if (!fits) return CUBLAS_STATUS_INVALID_VALUE;
    const auto matrix = d.leading * static_cast<std::int64_t>(d.columns);
    if (d.batch > 1 && d.stride < matrix) return CUBLAS_STATUS_INVALID_VALUE;
    if (operation.epilogue == CUBLASLT_EPILOGUE_DGELU_BGRAD && !reads_aux())
      return CUBLAS_STATUS_INVALID_VALUE;
    return supported() ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
  }
  bool supported() const {
    const bool halves = a.type == CUDA_R_16BF && (d.type == CUDA_R_16BF || d.type == CUDA_R_32F);
    const bool types = a.type == b.type && (halves || (a.type == CUDA_R_32F && d.type == a.type));
    return types && operation.compute == CUBLAS_COMPUTE_32F && operation.scale == CUDA_R_32F &&
           (operation.epilogue == CUBLASLT_EPILOGUE_DEFAULT || supported_epilogue());
  }
  bool writes_bias() const {
    return operation.epilogue == CUBLASLT_EPILOGUE_BGRADA ||
           operation.epilogue == CUBLASLT_EPILOGUE_DGELU_BGRAD;
  }
  /// The leading dimension of h is a multiple of 8 and no less than the rows of D; that the address
  /// is known before it is read is how its alignment is promised.
  bool reads_aux() const {
    return operation.aux != nullptr && operation.aux_leading % 8 == 0 &&
           operation.aux_leading >= static_cast<std::int64_t>(d.rows);
  }
  /// Biases and their gradients have D's type; a gradient is of one product, by A as it lies.
  bool supported_epilogue() const {
    if (operation.bias_type != -1 && operation.bias_type != d.type) return false;
    if (operation.epilogue == CUBLASLT_EPILOGUE_BIAS) return true;
    if (operation.epilogue == CUBLASLT_EPILOGUE_BGRADA) return !transposed_a() && d.batch == 1;
    return operation.epilogue == CUBLASLT_EPILOGUE_DGELU_BGRAD && inner() > 1 && d.batch == 1;
  }
  /// Of everything but addresses.
  std::uint64_t hash() const {
    std::uint64_t hash = 0xcbf29ce484222325ULL;
    const auto add = [&](std::uint64_t value) { hash = (hash ^ value) * 0x100000001b3ULL; };
    for (const Layout* l : {&a, &b, &c, &d})
      for (const std::uint64_t value :
           {static_cast<std::uint64_t>(l->type), l->rows, l->columns,
            static_cast<std::uint64_t>(l->leading), static_cast<std::uint64_t>(l->stride),
            static_cast<std::uint64_t>(l->batch)})
        add(value);
    add(static_cast<std::uint64_t>(operation.transpose_a));
    add(static_cast<std::uint64_t>(operation.transpose_b));
    add(operation.epilogue);
    add(static_cast<std::uint64_t>(operation.aux_leading));
    return hash;
  }
};

inline Problem problem_of(cublasLtMatmulDesc_t operation, cublasLtMatrixLayout_t a,
                          cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c,
                          cublasLtMatrixLayout_t d) {
  return {as<Operation>(operation), as<Layout>(a), as<Layout>(b), as<Layout>(c), as<Layout>(d)};
}

inline bool aligned(const void* pointer, std::uint64_t bytes) {
  return reinterpret_cast<std::uintptr_t>(pointer) % bytes == 0;
}

struct Call {
  const Problem& problem;
  const void *a, *b, *c;
  void* d;
  double alpha, beta;
  std::int32_t way;  // 0: in double; else in f32, `way` partial sums

  template <class Term>
  double sum(const Term& term) const {
    const auto count = static_cast<std::int64_t>(problem.inner());
    double exact = 0;
    for (std::int64_t l = 0; way == 0 && l < count; ++l) exact += term(l);
    float rounded = 0;
    for (std::int64_t part = 0; part < way; ++part) {
      float partial = 0;
      for (std::int64_t l = part; l < count; l += way) partial += static_cast<float>(term(l));
      rounded += partial;
    }
    return way == 0 ? exact : double{rounded};
  }
  void multiply(std::int64_t item) const {
    const auto rows = static_cast<std::int64_t>(problem.d.rows);
    const auto columns = static_cast<std::int64_t>(problem.d.columns);
    const Operation& operation = problem.operation;
    for (std::int64_t i = 0; i < rows; ++i) {
      double total = 0;
      for (std::int64_t j = 0; j < columns; ++j) {
        double value = alpha * product(item, i, j);
        if (beta != 0) value += beta * load(c, problem.c.type, at(problem.c, item, i, j));
        if (operation.epilogue == CUBLASLT_EPILOGUE_BIAS)
          value += load(operation.bias, problem.d.type, i);
        if (operation.epilogue == CUBLASLT_EPILOGUE_DGELU_BGRAD)
          value *= gelu_slope(load(operation.aux, problem.d.type, j * operation.aux_leading + i));
        total += value;
        save(d, problem.d.type, at(problem.d, item, i, j), value);
      }
      if (operation.epilogue == CUBLASLT_EPILOGUE_BGRADA) total = sum_of_a(i);
      if (problem.writes_bias()) save(operation.bias, problem.d.type, i, total);
    }
  }

 private:
  static std::int64_t at(const Layout& l, std::int64_t item, std::int64_t i, std::int64_t j) {
    return item * l.stride + j * l.leading + i;
  }
  double of_a(std::int64_t item, std::int64_t i, std::int64_t l) const {
    const bool t = problem.transposed_a();
    return load(a, problem.a.type, at(problem.a, item, t ? l : i, t ? i : l));
  }
  double product(std::int64_t item, std::int64_t i, std::int64_t j) const {
    const bool t = problem.transposed_b();
    return sum([&](std::int64_t l) {
      return of_a(item, i, l) * load(b, problem.b.type, at(problem.b, item, t ? j : l, t ? l : j));
    });
  }
  double sum_of_a(std::int64_t i) const {
    return sum([&](std::int64_t l) { return of_a(0, i, l); });
  }
};

}  // namespace fake_cublaslt_problem
