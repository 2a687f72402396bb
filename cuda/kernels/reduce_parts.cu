#include <algorithm>
#include <type_traits>

#include "ashlar/communicator.hpp"
#include "cuda/device.h"
#include "cuda/kernels/reduce_parts.hpp"

namespace ashlar::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kLanes = 16;  // partial sums of squares, as in src/comm/reduce.cpp
static_assert(kNormBlock % kLanes == 0);

template <typename T>
inline constexpr bool kNarrow =
    std::is_same_v<T, float> || std::is_same_v<T, bf16> || std::is_same_v<T, f16>;

/// What T is summed in; integers wrap around.
template <typename T, bool integral = std::is_integral_v<T>>
struct SumOf {
  using type = std::conditional_t<std::is_same_v<T, double>, double, float>;
};
template <typename T>
struct SumOf<T, true> {
  using type = std::make_unsigned_t<T>;
};
template <typename T>
using Sum = typename SumOf<T>::type;

template <typename T>
__device__ Sum<T> widen(T value) {
  if constexpr (kNarrow<T>)
    return to_float(value);
  else
    return static_cast<Sum<T>>(value);
}

template <typename R, typename S>
__device__ R narrow(S sum) {
  if constexpr (kNarrow<R>)
    return from_float<R>(sum);
  else
    return static_cast<R>(sum);
}

template <typename R>
__device__ double square(R value) {
  const auto wide = static_cast<double>(widen(value));
  return wide * wide;
}

template <typename T>
__device__ Sum<T> sum_over_ranks(const PartsSum& p, std::int64_t i) {
  const T* own = static_cast<const T*>(p.own);
  const T* others = static_cast<const T*>(p.others);
  Sum<T> sum = widen(p.rank == 0 ? own[i] : others[i]);
  for (int r = 1; r < p.ranks; ++r) {
    const T value = r == p.rank ? own[i] : others[(r < p.rank ? r : r - 1) * p.stride + i];
    sum = static_cast<Sum<T>>(sum + widen(value));
  }
  return sum;
}

/// Squares of a block's stored values: sixteen sums, then their sum in order, by one thread each.
template <typename R>
__device__ void square_block(const R* values, int count, double* partial) {
  auto& lanes = shared<double[kLanes], struct Squares>();
  const int lane = static_cast<int>(threadIdx.x);
  if (lane < kLanes) {
    double sum = 0;
    for (int i = lane; i < count; i += kLanes) sum += square(values[i]);
    lanes[lane] = sum;
  }
  __syncthreads();
  if (lane != 0) return;
  double sum = 0;
  for (const double each : lanes) sum += each;
  *partial = sum;
}

/// One block of threads for each kNormBlock elements.
template <typename T, typename R>
__global__ void sum_parts(PartsSum p) {
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * kNormBlock;
  const std::int64_t left = p.count - first;
  const int count = static_cast<int>(left < kNormBlock ? left : kNormBlock);
  R* recv = static_cast<R*>(p.recv) + first;
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kThreads) {
    Sum<T> sum = sum_over_ranks<T>(p, first + i);
    if (p.accumulate) sum = static_cast<Sum<T>>(widen(recv[i]) + sum);
    if constexpr (std::is_same_v<Sum<T>, float>)
      if (p.round_to_bf16) sum = to_float(from_float<bf16>(sum));
    recv[i] = narrow<R>(sum);
  }
  if constexpr (!std::is_integral_v<R>) {
    if (p.squares == nullptr) return;
    __syncthreads();
    square_block(recv, count, p.partials + blockIdx.x);
  }
}

/// The blocks' squares, in order.
__global__ void add_squares(double* squares, const double* partials, int blocks, bool first) {
  auto& tile = shared<double[kThreads], struct Tile>();
  const int thread = static_cast<int>(threadIdx.x);
  double sum = first ? 0.0 : *squares;
  for (int begin = 0; begin < blocks; begin += kThreads) {
    __syncthreads();
    if (begin + thread < blocks) tile[thread] = partials[begin + thread];
    __syncthreads();
    if (thread == 0)
      for (int i = 0; i < kThreads && begin + i < blocks; ++i) sum += tile[i];
  }
  __syncthreads();
  if (thread == 0) *squares = sum;
}

template <typename T, typename R = T>
void launch_sum(const PartsSum& p, unsigned blocks, StreamRef stream) {
  launch(blocks, kThreads, 0, stream, sum_parts<T, R>, p);
}

template <typename T>
void launch_narrow(const PartsSum& p, unsigned blocks, StreamRef stream) {
  if (p.recv_type == DType::f32) return launch_sum<T, float>(p, blocks, stream);
  if (p.recv_type == DType::bf16) return launch_sum<T, bf16>(p, blocks, stream);
  launch_sum<T, f16>(p, blocks, stream);
}

void launch_any(const PartsSum& p, unsigned blocks, StreamRef stream) {
  switch (p.source_type) {
    case DType::f32:
      return launch_narrow<float>(p, blocks, stream);
    case DType::bf16:
      return launch_narrow<bf16>(p, blocks, stream);
    case DType::f16:
      return launch_narrow<f16>(p, blocks, stream);
    case DType::f64:
      return launch_sum<double>(p, blocks, stream);
    case DType::i32:
      return launch_sum<std::int32_t>(p, blocks, stream);
    case DType::i64:
      return launch_sum<std::int64_t>(p, blocks, stream);
    case DType::u8:
      return launch_sum<std::uint8_t>(p, blocks, stream);
  }
}

bool is_integer(DType dtype) {
  return dtype == DType::i32 || dtype == DType::i64 || dtype == DType::u8;
}

}  // namespace

void reduce_parts(const PartsSum& sum, StreamRef stream) {
  const auto blocks = static_cast<unsigned>((sum.count + kNormBlock - 1) / kNormBlock);
  if (blocks > 0) launch_any(sum, blocks, stream);
  if (sum.squares == nullptr) return;
  const int squared = is_integer(sum.recv_type) ? 0 : static_cast<int>(blocks);
  launch(1, kThreads, 0, stream, add_squares, sum.squares, sum.partials, squared, sum.first_piece);
}

void round_sums(const KernelArguments& a) {
  const std::size_t shards = a.outputs.size() - 1;
  std::int64_t begin = 0;
  for (std::size_t i = 0; i < shards; ++i) {
    const TensorView& shard = a.outputs[i];
    reduce_parts({.own = a.inputs[0].as<const float>() + begin,
                  .recv = shard.data,
                  .recv_type = shard.dtype,
                  .count = shard.elements(),
                  .round_to_bf16 = a.attributes.integer("round_bf16") != 0,
                  .squares = a.outputs[shards].as<double>() + i,
                  .partials = reinterpret_cast<double*>(a.workspace)},
                 a.context.stream);
    begin += shard.elements();
  }
}

std::int64_t round_sums_workspace(const OpShapes& shapes) {
  std::int64_t longest = 0;
  for (const TensorType& shard : shapes.outputs.first(shapes.outputs.size() - 1))
    longest = std::max(longest, shard.elements());
  return (longest + kNormBlock - 1) / kNormBlock * size_of(DType::f64);
}

}  // namespace ashlar::cuda
