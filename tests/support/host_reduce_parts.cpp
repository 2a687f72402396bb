// The CPU's reduce in the place of the kernel, where the emulator is not built.
#include <array>
#include <vector>

#include "comm/reduce.hpp"
#include "cuda/kernels/reduce_parts.hpp"

namespace ashlar::cuda {

void reduce_parts(const PartsSum& sum, StreamRef stream) {
  stream.enqueue([p = sum] {
    std::vector<const std::byte*> sources;
    const auto* others = static_cast<const std::byte*>(p.others);
    for (int r = 0; r < p.ranks; ++r)
      sources.push_back(r == p.rank ? static_cast<const std::byte*>(p.own)
                                    : others + (r < p.rank ? r : r - 1) * p.stride *
                                                   size_of(p.source_type));
    if (p.squares != nullptr && p.first_piece) *p.squares = 0;
    detail::reduce({.sources = sources,
                    .source_type = p.source_type,
                    .recv = static_cast<std::byte*>(p.recv),
                    .recv_type = p.recv_type,
                    .count = p.count,
                    .accumulate = p.accumulate,
                    .round_to_bf16 = p.round_to_bf16,
                    .sum_of_squares = p.squares});
  });
}

}  // namespace ashlar::cuda
