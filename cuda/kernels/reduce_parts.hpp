// What one rank of a reduce-scatter adds up once the parts of the others have arrived.
#pragma once

#include <cstdint>

#include "ashlar/device.hpp"
#include "ashlar/dtype.hpp"
#include "ashlar/op.hpp"

namespace ashlar::cuda {

/// recv[i] = round([recv[i] +] part of rank 0 [i] + part of rank 1 [i] + ...), from left to right:
/// f32, bf16 and f16 in fp32, f64 in fp64, integers modulo their width. The bits are those of
/// detail::reduce (src/comm/reduce.hpp), which the CPU's communicators call.
struct PartsSum {
  const void* own = nullptr;     // (count) of source_type; recv may be the same
  const void* others = nullptr;  // (ranks - 1, stride): the other ranks' parts by rank
  std::int64_t stride = 0;       // elements
  int rank = 0;
  int ranks = 1;
  DType source_type = DType::f32;
  void* recv = nullptr;  // (count)
  DType recv_type = DType::f32;
  std::int64_t count = 0;
  bool accumulate = false;
  bool round_to_bf16 = false;
  /// The sum of squares of what is stored, in blocks of kNormBlock summed in order; null for none.
  /// A flat may be summed in pieces, in order, when all but the last are whole blocks.
  double* squares = nullptr;
  bool first_piece = true;     // squares begins at 0
  double* partials = nullptr;  // one for each block, scratch
};

/// Two launches at most. All memory is the device's (or pinned). @throws CudaError.
void reduce_parts(const PartsSum& sum, StreamRef stream);

/// The row of sharding/replica_ops.hpp: sums, one after the other in inputs[0], are rounded into
/// the shards, with a sum of squares of each.
void round_sums(const KernelArguments& arguments);
std::int64_t round_sums_workspace(const OpShapes& shapes);

}  // namespace ashlar::cuda
