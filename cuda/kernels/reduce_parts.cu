#include <algorithm>
#include <type_traits>

#include "ashlar/communicator.hpp"
#include "cuda/device.h"
#include "cuda/kernels/pack.hpp"
#include "cuda/kernels/reduce_parts.hpp"

namespace ashlar::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kSquares = 2048;  // partial sums of squares that are read at a time
constexpr int kLanes = 16;      // partial sums of squares, as in src/comm/reduce.cpp
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

template <typename R>
__device__ double square(R value) {
  const auto wide = static_cast<double>(widen(value));
  return wide * wide;
}

template <typename T>
__device__ PackOf<Sum<T>> load_wide(const T* p, std::int64_t left) {
  if constexpr (kNarrow<T>) {
    return load_pack(p, left);
  } else {
    PackOf<Sum<T>> pack;
    for (int k = 0; k < kPack; ++k) pack.at[k] = k < left ? widen(p[k]) : Sum<T>{0};
    return pack;
  }
}

template <typename R, typename S>
__device__ void store_narrow(const PackOf<S>& pack, R* p, std::int64_t left) {
  if constexpr (kNarrow<R>) {
    store_pack(pack, p, left);
  } else {
    for (int k = 0; k < kPack && k < left; ++k) p[k] = static_cast<R>(pack.at[k]);
  }
}

template <typename S>
__device__ PackOf<S> sum_of(const PackOf<S>& a, const PackOf<S>& b) {
  PackOf<S> sum;
  for (int k = 0; k < kPack; ++k) sum.at[k] = static_cast<S>(a.at[k] + b.at[k]);
  return sum;
}

/// Elements [i, i + kPack) of the parts, by rank.
template <typename T>
__device__ PackOf<Sum<T>> sum_over_ranks(const PartsSum& p, std::int64_t i, std::int64_t left) {
  const T* own = static_cast<const T*>(p.own) + i;
  const T* others = static_cast<const T*>(p.others) + i;
  PackOf<Sum<T>> sum = load_wide(p.rank == 0 ? own : others, left);
  for (int r = 1; r < p.ranks; ++r)
    sum = sum_of(sum,
                 load_wide(r == p.rank ? own : others + (r < p.rank ? r : r - 1) * p.stride, left));
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

/// One block of threads for each kNormBlock elements. Squares are taken of a copy in shared memory.
template <typename T, typename R>
__global__ void sum_parts(PartsSum p, bool writes) {
  R* stored = p.squares == nullptr ? nullptr : dynamic_shared<R>();
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * kNormBlock;
  const std::int64_t left = p.count - first;
  const int count = static_cast<int>(left < kNormBlock ? left : kNormBlock);
  R* recv = static_cast<R*>(p.recv) + first;
  for (int i = static_cast<int>(threadIdx.x) * kPack; i < count; i += kThreads * kPack) {
    PackOf<Sum<T>> sum = sum_over_ranks<T>(p, first + i, count - i);
    if (p.accumulate) sum = sum_of(load_wide(recv + i, count - i), sum);
    if constexpr (std::is_same_v<Sum<T>, float>)
      if (p.round_to_bf16)
        for (float& element : sum.at) element = to_float(from_float<bf16>(element));
    if (writes) store_narrow(sum, recv + i, count - i);
    if (p.squares != nullptr) store_narrow(sum, stored + i, kPack);
  }
  if constexpr (!std::is_integral_v<R>) {
    if (p.squares == nullptr) return;
    __syncthreads();
    square_block(stored, count, p.partials + blockIdx.x);
  }
}

/// The blocks' squares, in order.
__global__ void add_squares(double* squares, const double* partials, int blocks, bool first) {
  auto& tile = shared<double[kSquares], struct Tile>();
  const int thread = static_cast<int>(threadIdx.x);
  double sum = first ? 0.0 : *squares;
  for (int begin = 0; begin < blocks; begin += kSquares) {
    const int count = blocks - begin < kSquares ? blocks - begin : kSquares;
    __syncthreads();
    for (int i = thread; i < count; i += kThreads) tile[i] = partials[begin + i];
    __syncthreads();
    if (thread == 0)
      for (int i = 0; i < count; ++i) sum += tile[i];
  }
  __syncthreads();
  if (thread == 0) *squares = sum;
}

/// Whether what is stored can differ from what lies there.
bool writes(const PartsSum& p) {
  const bool rounds = p.round_to_bf16 && p.source_type != DType::bf16;
  return p.recv != p.own || p.recv_type != p.source_type || p.ranks > 1 || p.accumulate || rounds;
}

template <typename T, typename R = T>
void launch_sum(const PartsSum& p, unsigned blocks, StreamRef stream) {
  const std::size_t shared_bytes = p.squares == nullptr ? 0 : kNormBlock * sizeof(R);
  launch(blocks, kThreads, shared_bytes, stream, sum_parts<T, R>, p, writes(p));
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
  if (blocks > 0 && (writes(sum) || sum.squares != nullptr)) launch_any(sum, blocks, stream);
  if (sum.squares == nullptr) return;
  const int squared = is_integer(sum.recv_type) ? 0 : static_cast<int>(blocks);
  launch(1, kThreads, 0, stream, add_squares, sum.squares, sum.partials, squared, sum.first_piece);
}

void round_sums(const KernelArguments& a) {
  const std::size_t shards = a.outputs.size() - 1;
  const TensorView& sums = a.inputs[0];
  std::int64_t begin = 0;
  for (std::size_t i = 0; i < shards; ++i) {
    const TensorView& shard = a.outputs[i];
    reduce_parts({.own = sums.data + begin * size_of(sums.dtype),
                  .source_type = sums.dtype,
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
