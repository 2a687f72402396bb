// How much memory cuDNN's attention takes, and what follows from it. Its documentation does not
// say: the sums below are what plans of 9.19 ask for, and each of their parts has its tensor in the
// graphs (cuDNN frontend 1.32, scaled_dot_product_flash_attention.h).
#include <fmt/format.h>

#include "ashlar/memory_resource.hpp"
#include "cuda/attention.hpp"

namespace ashlar::cuda {
namespace {

constexpr std::int64_t kPadding = 1024;  // between parts

std::int64_t backward_bytes(const AttentionProblem& p) {
  const std::int64_t heads = p.sequences * p.heads;
  const std::int64_t rows = heads * p.positions, elements = rows * p.head_size;
  const bool grouped = p.heads != p.kv_heads;
  const std::int64_t dout_out = 4 * rows;
  // Gradients of keys and values for every head of queries, in bf16.
  const std::int64_t ungrouped = grouped ? 4 * elements : 0;
  const std::int64_t dquery = 4 * elements;
  if (p.deterministic && p.sm < 100) {  // the gradient of the scores, in tiles
    const std::int64_t queries = align_up(p.positions, 64);
    const std::int64_t keys = align_up(p.positions, p.sm == 90 ? 128 : 64);
    return dout_out + ungrouped + 2 * heads * queries * keys;
  }
  if (p.deterministic) return dout_out + ungrouped + (grouped ? dquery : 0);
  // The engine of sm_80, which serves short sequences on sm_100 too, sums in a second place.
  const bool twice = p.sm == 80 || (p.sm == 100 && p.positions <= 128);
  const std::int64_t second = 4 * heads * align_up(p.positions, 8) * p.head_size;
  return dout_out + ungrouped + dquery + (twice ? second : 0);
}

/// The largest divisor of n for which fits(divisor); 1 if none does.
template <class Fits>
std::int64_t largest_divisor(std::int64_t n, const Fits& fits) {
  for (std::int64_t parts = 1; parts < n; ++parts)
    if (n % parts == 0 && fits(n / parts)) return n / parts;
  return 1;
}

}  // namespace

std::string describe(const AttentionProblem& p) {
  const std::string heads = p.kv_heads == p.heads
                                ? fmt::format("{} heads", p.heads)
                                : fmt::format("{} heads over {} of keys", p.heads, p.kv_heads);
  return fmt::format("attention{} of {} x {} positions, {} of {} channels on sm_{}",
                     p.backward ? " backward" : "", p.sequences, p.positions, heads, p.head_size,
                     p.sm);
}

std::int64_t library_bytes(const AttentionProblem& p) {
  return kPadding + (p.backward ? backward_bytes(p) : 0);
}

AttentionProblem part_of(const AttentionProblem& problem) {
  AttentionProblem part = problem;
  if (!problem.backward) return part;
  const auto fits = [&] { return library_bytes(part) <= kMostLibraryBytes; };
  part.sequences = largest_divisor(problem.sequences, [&](std::int64_t n) {
    part.sequences = n;
    return fits();
  });
  if (fits()) return part;
  const std::int64_t group = problem.heads / problem.kv_heads;
  const auto take = [&](std::int64_t kv_heads) {
    part.kv_heads = kv_heads;
    part.heads = kv_heads * group;
  };
  take(largest_divisor(problem.kv_heads, [&](std::int64_t n) {
    take(n);
    return fits();
  }));
  return part;
}

}  // namespace ashlar::cuda
