// The one kernel that sums over ranks. Every communicator calls it, so sums have the same bits on
// every transport.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "ashlar/dtype.hpp"
#include "ashlar/tensor_view.hpp"

namespace ashlar::detail {

/// recv[i] = round([recv[i] +] sources[0][i] + sources[1][i] + ...), summed from left to right:
/// f32, bf16 and f16 in fp32, f64 in fp64, integers exactly (modulo their width). recv may be one
/// of the sources.
struct Reduction {
  std::span<const std::byte* const> sources;
  DType source_type = DType::f32;
  std::byte* recv = nullptr;
  DType recv_type = DType::f32;
  std::int64_t count = 0;
  bool accumulate = false;
  bool round_to_bf16 = false;
  /// Grows by the squares of the stored result, block by block of kNormBlock elements; null for
  /// none. A flat may be reduced in pieces, in order, when all but the last are whole blocks.
  double* sum_of_squares = nullptr;
};
void reduce(const Reduction& reduction);

/// Whether sums of `source` can be stored as `recv`: equal types, or any two of f32, bf16 and f16.
bool can_reduce(DType source, DType recv);

/// As a reduction would fill it: what clipping needs where nothing was reduced. Zero for integers.
double sum_of_squares(const TensorView& values);

}  // namespace ashlar::detail
