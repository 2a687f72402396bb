// Matrix products: one entry over OpenBLAS, oneDNN and our own bf16 panels, chosen by a committed
// table. Sums are kept in f32 (f64 for f64) and rounded once.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "ashlar/op.hpp"

namespace ashlar {

/// C (m, n) = op(A) (m, k) x op(B) (k, n), row-major; a transposed operand lies as (k, m), (n, k).
struct Gemm {
  std::int64_t m = 0;
  std::int64_t n = 0;
  std::int64_t k = 0;
  bool transpose_a = false;
  bool transpose_b = false;
  std::int64_t lda = 0;  // elements between rows as they lie; 0: no gaps
  std::int64_t ldb = 0;
  std::int64_t ldc = 0;
  DType dtype = DType::f32;   // of A, B and the bias: f32, bf16 or f64
  DType result = DType::f32;  // of C: dtype, or f32 for bf16
  bool accumulate = false;    // C += instead of C =; C is f32 or f64, and there is no bias
  bool bias = false;          // adds a row of n elements before rounding
  auto operator<=>(const Gemm&) const = default;
};

/// Who computes a product.
enum class GemmBackend : std::uint8_t { openblas, onednn, panels };

struct GemmRule {
  GemmBackend backend = GemmBackend::openblas;
  bool pack_b = false;  // oneDNN: B is reordered into its own layout first, in the workspace
};

/// The committed choice for a product: a function of cpu, element type and shape alone.
GemmRule gemm_rule(const Gemm& gemm, std::string_view cpu);

/// One backend's code for one product on one thread. Concurrent runs on different memory are fine.
class GemmKernel {
 public:
  GemmKernel() = default;
  GemmKernel(const GemmKernel&) = delete;
  GemmKernel& operator=(const GemmKernel&) = delete;
  virtual ~GemmKernel() = default;
  virtual std::int64_t workspace_bytes() const = 0;
  /// @param bias null unless the product has one
  virtual void run(const std::byte* a, const std::byte* b, const std::byte* bias, std::byte* c,
                   std::byte* workspace) const = 0;
};

/// @param at_once runs at the same time for which everything is ready; more than these allocate
std::unique_ptr<GemmKernel> make_gemm_kernel(const Gemm& gemm, const GemmRule& rule,
                                             std::int64_t at_once);

/// A product split over the threads of a rank: fixed chunks of rows, or of columns where those are
/// more. Same bits for any memory and at every run; another number of threads may round elsewise.
class GemmPlan {
 public:
  GemmPlan() = default;
  /// Of f16: bf16's, for its workspace alone. @throws InvalidArgument for element types that have
  /// no product.
  GemmPlan(const Gemm& gemm, const Backend& backend);
  GemmPlan(const Gemm& gemm, const GemmRule& rule, int threads);

  const Gemm& gemm() const { return gemm_; }
  std::int64_t workspace_bytes() const;
  void run(const RunContext& context, const std::byte* a, const std::byte* b, const std::byte* bias,
           std::byte* c, std::byte* workspace) const;

 private:
  void run_chunk(std::int64_t index, const std::byte* a, const std::byte* b, const std::byte* bias,
                 std::byte* c, std::byte* workspace) const;

  Gemm gemm_;
  bool by_rows_ = true;
  std::int64_t chunk_ = 0;   // rows or columns
  std::int64_t chunks_ = 0;  // 0: nothing to multiply
  std::unique_ptr<GemmKernel> full_;
  std::unique_ptr<GemmKernel> last_;  // of another size, or null
};

/// Bytes rounded up so that what follows is aligned.
constexpr std::int64_t aligned(std::int64_t bytes) { return (bytes + 63) / 64 * 64; }

/// The leading dimensions as they are when none were given.
Gemm with_leading_dimensions(Gemm gemm);

/// C = bias in every row, or 0 without one.
void fill_rows(const Gemm& gemm, const std::byte* bias, std::byte* c);

/// Changes the environment for a moment at its first call; the plans of all threads wait for it.
void load_openblas();

std::unique_ptr<GemmKernel> make_openblas_gemm(const Gemm& gemm);
std::unique_ptr<GemmKernel> make_onednn_gemm(const Gemm& gemm, bool pack_b, std::int64_t at_once);
std::unique_ptr<GemmKernel> make_panel_gemm(const Gemm& gemm);

}  // namespace ashlar
