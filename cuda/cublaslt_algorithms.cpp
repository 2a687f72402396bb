#include "cuda/cublaslt_algorithms.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "base/hash.hpp"

namespace ashlar::cuda {

namespace {

std::string_view name_of(Epilogue epilogue) {
  if (epilogue == Epilogue::bias_gradient) return "bias_gradient";
  return epilogue == Epilogue::gelu_backward ? "gelu_backward" : "none";
}

}  // namespace

std::string describe(const Product& product) {
  const Gemm& g = product.gemm;
  const auto matrix = [](std::int64_t rows, std::int64_t columns, bool transposed) {
    return transposed ? fmt::format("({}, {})^T", columns, rows)
                      : fmt::format("({}, {})", rows, columns);
  };
  return fmt::format(
      "{}{} x {}, {} to {}{}{}{}{}",
      product.batch == 1 ? "" : fmt::format("{} times ", product.batch),
      matrix(g.m, g.k, g.transpose_a), matrix(g.k, g.n, g.transpose_b), name_of(g.dtype),
      name_of(g.result), g.accumulate ? ", added" : "", g.bias ? ", with bias" : "",
      product.epilogue == Epilogue::none ? "" : fmt::format(", with {}", name_of(product.epilogue)),
      product.aligned ? "" : ", not aligned");
}

std::string table_line(const AlgorithmEntry& entry) {
  const Product& p = entry.key.product;
  const Gemm& g = p.gemm;
  return fmt::format(
      "{{{{{{{{{}, {}, {}, {}, {}, {}, {}, {}, DType::{}, DType::{}, {}, {}}}, {}, {}, {}, {}, {}, "
      "Epilogue::{}}}, {}, {}}}, {{{:#x}}}}},",
      g.m, g.n, g.k, g.transpose_a, g.transpose_b, g.lda, g.ldb, g.ldc, name_of(g.dtype),
      name_of(g.result), g.accumulate, g.bias, p.batch, p.stride_a, p.stride_b, p.stride_c,
      p.aligned, name_of(p.epilogue), entry.key.sm, entry.key.version,
      fmt::join(entry.words, ", "));
}

std::uint64_t hash_of(std::span<const AlgorithmEntry> entries) {
  std::uint64_t hash = kFnvBasis;
  for (const AlgorithmEntry& entry : entries) hash = fnv1a64(table_line(entry), hash);
  return hash;
}

Algorithms::Algorithms(std::span<const AlgorithmEntry> table) : table_(table) {}

const AlgorithmWords* Algorithms::find_committed(const AlgorithmKey& key) const {
  const auto entry = std::ranges::find(table_, key, &AlgorithmEntry::key);
  return entry == table_.end() ? nullptr : &entry->words;
}

std::vector<AlgorithmEntry> Algorithms::chosen() const {
  const std::scoped_lock lock(mutex_);
  std::vector<AlgorithmEntry> entries;
  for (const auto& [key, words] : chosen_) entries.push_back({key, words});
  return entries;
}

}  // namespace ashlar::cuda
