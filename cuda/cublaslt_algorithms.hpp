// Which of cuBLASLt's algorithms multiplies what. A choice stays for the life of the process, and
// is the same for a product of the same kind wherever its operands lie.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <map>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "ops/product/gemm.hpp"

namespace ashlar::cuda {

/// What the library computes beside a product.
enum class Epilogue : std::uint8_t {
  none,           // at most the bias of Gemm::bias
  bias_gradient,  // also the sums of B's columns
  gelu_backward,  // C = gelu'(h) x the product, and the sums of C's columns
};

/// `batch` products of one kind, `stride_*` elements from one operand to the next; 0: the same one.
struct Product {
  Gemm gemm;  // with leading dimensions
  std::int64_t batch = 1;
  std::int64_t stride_a = 0, stride_b = 0, stride_c = 0;
  bool aligned = true;  // A, B and C begin at multiples of 16 bytes
  Epilogue epilogue = Epilogue::none;
  auto operator<=>(const Product&) const = default;
};

/// "(96, 64) x (64, 32)^T, bf16 to f32, with bias".
std::string describe(const Product& product);

/// What a choice depends on.
struct AlgorithmKey {
  Product product;
  int sm = 0;                 // of the GPU: 90 for 9.0
  std::uint64_t version = 0;  // of cuBLASLt: 130100 for 13.1.0
  auto operator<=>(const AlgorithmKey&) const = default;
};

/// cublasLtMatmulAlgo_t, which may be stored and used again with the same version. All zeros: the
/// library has no algorithm with the product's epilogue.
using AlgorithmWords = std::array<std::uint64_t, 8>;
inline constexpr AlgorithmWords kNoAlgorithm = {};

struct AlgorithmEntry {
  AlgorithmKey key;
  AlgorithmWords words = {};
};

/// The committed choices, measured on GPUs: cublaslt_table.cpp.
std::span<const AlgorithmEntry> committed_algorithms();
/// The entry as it stands in cublaslt_table.cpp.
std::string table_line(const AlgorithmEntry& entry);
/// Equal for equal entries in the same order.
std::uint64_t hash_of(std::span<const AlgorithmEntry> entries);

/// Thread-safe.
class Algorithms {
 public:
  explicit Algorithms(std::span<const AlgorithmEntry> table = committed_algorithms());

  /// The choice made before, else `given`, else the table's, else the library's first heuristic.
  /// @param given another rank's; null: none
  /// @param check finds that what was given or stands in the table works here, or throws; at most
  /// once a key  @param ask asks the library, or throws; likewise
  template <class Check, class Ask>
  AlgorithmWords choose(const AlgorithmKey& key, const AlgorithmWords* given, const Check& check,
                        const Ask& ask) {
    const std::scoped_lock lock(mutex_);
    const auto made = chosen_.find(key);
    if (made != chosen_.end()) return made->second;
    const AlgorithmWords* known = given != nullptr ? given : find_committed(key);
    if (known != nullptr) check(*known);
    const AlgorithmWords words = known != nullptr ? *known : ask();
    chosen_.emplace(key, words);
    return words;
  }

  /// All choices made so far, in ascending order of their keys.
  std::vector<AlgorithmEntry> chosen() const;

 private:
  const AlgorithmWords* find_committed(const AlgorithmKey& key) const;

  std::span<const AlgorithmEntry> table_;
  mutable std::mutex mutex_;
  std::map<AlgorithmKey, AlgorithmWords> chosen_;
};

}  // namespace ashlar::cuda
