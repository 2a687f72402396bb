// f32 and f64 products by OpenBLAS, one thread per call.
#include <dlfcn.h>
#include <fmt/format.h>

#include <cstdlib>
#include <limits>
#include <optional>
#include <string>
#include <type_traits>

#include "ashlar/error.hpp"
#include "ops/product/gemm.hpp"

namespace ashlar {
namespace {

constexpr int kRowMajor = 101, kPlain = 111, kTransposed = 112;  // CBLAS

template <typename T>
using CblasGemm = void (*)(int order, int transpose_a, int transpose_b, int m, int n, int k,
                           T alpha, const T* a, int lda, const T* b, int ldb, T beta, T* c,
                           int ldc);

/// Sets (null: removes) an environment variable for a while.
class ScopedVariable {
 public:
  ScopedVariable(const char* name, const char* value) : name_(name) {
    if (const char* before = std::getenv(name)) before_ = before;
    set(value);
  }
  ~ScopedVariable() { set(before_ ? before_->c_str() : nullptr); }
  ScopedVariable(const ScopedVariable&) = delete;
  ScopedVariable& operator=(const ScopedVariable&) = delete;

 private:
  void set(const char* value) const {
    if (value == nullptr) {
      unsetenv(name_);
    } else {
      setenv(name_, value, 1);
    }
  }

  const char* name_;
  std::optional<std::string> before_;
};

/// Loaded at run time because OpenBLAS chooses kernels and blocks from the environment while it
/// loads. Here they follow from the processor alone, whatever the environment asks for: with
/// AVX-512 the SkylakeX kernels, which are twice as fast as Haswell's on Zen 5 too.
struct OpenBlas {
  CblasGemm<float> sgemm = nullptr;
  CblasGemm<double> dgemm = nullptr;

  OpenBlas() {
    const bool avx512 =
        __builtin_cpu_supports("avx512f") != 0 && __builtin_cpu_supports("avx512bw") != 0 &&
        __builtin_cpu_supports("avx512vl") != 0 && __builtin_cpu_supports("avx512dq") != 0;
    const ScopedVariable core("OPENBLAS_CORETYPE", avx512 ? "SkylakeX" : nullptr);
    const ScopedVariable cache("OPENBLAS_L2_SIZE", nullptr);
    const ScopedVariable threads("OPENBLAS_NUM_THREADS", "1");
    void* library = dlopen("libopenblas.so.0", RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr)
      throw Error(
          fmt::format("matrix products need OpenBLAS: {}; install libopenblas0", dlerror()));
    sgemm = reinterpret_cast<CblasGemm<float>>(find(library, "cblas_sgemm"));
    dgemm = reinterpret_cast<CblasGemm<double>>(find(library, "cblas_dgemm"));
    reinterpret_cast<void (*)(int)>(find(library, "openblas_set_num_threads"))(1);
  }

 private:
  static void* find(void* library, const char* name) {
    void* symbol = dlsym(library, name);
    if (symbol == nullptr) throw Error(fmt::format("libopenblas.so.0 has no {}", name));
    return symbol;
  }
};

const OpenBlas& openblas() {
  static const OpenBlas library;
  return library;
}

template <typename T>
CblasGemm<T> entry() {
  if constexpr (std::is_same_v<T, double>) {
    return openblas().dgemm;
  } else {
    return openblas().sgemm;
  }
}

template <typename T>
class OpenBlasGemm final : public GemmKernel {
 public:
  explicit OpenBlasGemm(const Gemm& gemm) : gemm_(gemm), call_(entry<T>()) {
    for (const std::int64_t extent : {gemm.m, gemm.n, gemm.k, gemm.lda, gemm.ldb, gemm.ldc}) {
      if (extent > std::numeric_limits<int>::max())
        throw InvalidArgument(
            fmt::format("a matrix product takes extents below 2^31, not {}", extent));
    }
  }
  std::int64_t workspace_bytes() const override { return 0; }
  void run(const std::byte* a, const std::byte* b, const std::byte* bias, std::byte* c,
           std::byte*) const override {
    if (gemm_.bias) fill_rows(gemm_, bias, c);
    const T beta = gemm_.bias || gemm_.accumulate ? T{1} : T{0};
    call_(kRowMajor, gemm_.transpose_a ? kTransposed : kPlain,
          gemm_.transpose_b ? kTransposed : kPlain, narrow(gemm_.m), narrow(gemm_.n),
          narrow(gemm_.k), T{1}, reinterpret_cast<const T*>(a), narrow(gemm_.lda),
          reinterpret_cast<const T*>(b), narrow(gemm_.ldb), beta, reinterpret_cast<T*>(c),
          narrow(gemm_.ldc));
  }

 private:
  static int narrow(std::int64_t extent) { return static_cast<int>(extent); }

  Gemm gemm_;
  CblasGemm<T> call_;
};

}  // namespace

void load_openblas() { openblas(); }

std::unique_ptr<GemmKernel> make_openblas_gemm(const Gemm& gemm) {
  if (gemm.dtype == DType::f64) return std::make_unique<OpenBlasGemm<double>>(gemm);
  if (gemm.dtype == DType::f32) return std::make_unique<OpenBlasGemm<float>>(gemm);
  throw InvalidArgument("OpenBLAS multiplies f32 and f64");
}

}  // namespace ashlar
