// Matrix products by cuBLASLt on one device.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "cuda/cublaslt_algorithms.hpp"
#include "cuda/cublaslt_library.hpp"
#include "cuda/workspace.hpp"

namespace ashlar::cuda {

/// What the library may use of the workspace, and what a node plans for it.
inline constexpr std::int64_t kLibraryBytes = std::int64_t{32} << 20;
inline constexpr std::int64_t kProductWorkspace = kLibraryBytes + kLibraryAlignment;

/// Of a fused bias or bias gradient, of h, and of operands that are called aligned.
inline constexpr std::int64_t kOperandAlignment = 16;

struct ProductOperands {
  const std::byte* a = nullptr;
  const std::byte* b = nullptr;
  const std::byte* bias = nullptr;  // null unless the product has one; aligned
  std::byte* c = nullptr;
  std::byte* bias_gradient = nullptr;  // null unless the epilogue has one; (n) in C's type, aligned
  const std::byte* h = nullptr;  // of Epilogue::gelu_backward: (m, n) without gaps, in C's type
};

/// A handle of the library. Concurrent calls are fine.
class CublasLt {
 public:
  /// Of the calling thread's device. @param sm its compute capability: 90 for 9.0
  /// @throws CudaError where the library cannot be used.
  CublasLt(const CublasLtLibrary& library, int sm, Algorithms& algorithms);
  ~CublasLt();
  CublasLt(const CublasLt&) = delete;
  CublasLt& operator=(const CublasLt&) = delete;

  /// Enqueues a product of at least one element each way on `stream`: sums in f32 (without TF32),
  /// rounded once. Allocates no memory once its kind has been seen.
  /// @return false where the library has no algorithm with the product's epilogue, which it never
  /// is for Epilogue::none: nothing was enqueued
  /// @param workspace kProductWorkspace bytes on the device, any alignment
  /// @throws InvalidArgument for types other than f32 and bf16, CudaError naming the product where
  /// the library has no algorithm for it or fails.
  bool multiply(const Product& product, const ProductOperands& operands, std::byte* workspace,
                cudaStream_t stream) const;

  /// What its algorithm is chosen by here.
  AlgorithmKey key_of(const Product& product) const;
  /// What multiply does the product with from now on. @param given another rank's choice, in the
  /// place of this one's unless it was made before; null: none
  /// @throws as multiply, and CudaError where `given` does not work here.
  AlgorithmEntry choose(const Product& product, const AlgorithmWords* given = nullptr) const;
  /// The library's heuristics, the first first: at least one, at most `count`. Chooses nothing.
  /// @throws as multiply.
  std::vector<AlgorithmEntry> candidates(const Product& product, int count) const;

 private:
  class Descriptors;
  AlgorithmWords choose(const Product& product, Descriptors& d, const AlgorithmWords* given) const;
  void require_works(const Product& product, Descriptors& d, const AlgorithmWords& words,
                     std::string_view whose) const;
  std::vector<AlgorithmWords> heuristics(const Product& product, Descriptors& d, int count) const;

  const CublasLtLibrary& library_;
  Algorithms& algorithms_;
  int sm_;
  cublasLtHandle_t handle_ = nullptr;
};

}  // namespace ashlar::cuda
