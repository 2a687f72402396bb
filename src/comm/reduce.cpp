// A block that stays in L1 at a time: widen and add each source, then round, store and square. The
// loops are plain, so that the compiler vectorises them; none reassociates, so every machine
// agrees.
#include "comm/reduce.hpp"

#include <algorithm>
#include <array>
#include <type_traits>

#include "ashlar/communicator.hpp"
#include "ashlar/error.hpp"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__SANITIZE_THREAD__) && !defined(__SANITIZE_ADDRESS__)
#define ASHLAR_VECTOR_CLONES \
  __attribute__((flatten, target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define ASHLAR_VECTOR_CLONES
#endif

namespace ashlar::detail {
namespace {

constexpr std::int64_t kLanes = 16;
static_assert(kNormBlock % kLanes == 0);

template <typename T>
inline constexpr bool kFloat = !std::is_integral_v<T>;

/// What T is summed in; integers wrap around.
template <typename T>
using Sum = std::conditional_t<std::is_integral_v<T>, std::make_unsigned<T>,
                               std::conditional<std::is_same_v<T, double>, double, float>>::type;

template <typename T>
void add_first_two(const T* first, const T* second, Sum<T>* __restrict sum, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i)
    sum[i] = static_cast<Sum<T>>(static_cast<Sum<T>>(first[i]) + static_cast<Sum<T>>(second[i]));
}

template <typename T>
void add(const T* source, Sum<T>* __restrict sum, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i)
    sum[i] = static_cast<Sum<T>>(sum[i] + static_cast<Sum<T>>(source[i]));
}

template <typename T, typename S>
void widen(const T* source, S* __restrict sum, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) sum[i] = static_cast<S>(source[i]);
}

template <typename R, typename S>
void add_old(const R* recv, S* __restrict sum, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i)
    sum[i] = static_cast<S>(static_cast<S>(recv[i]) + sum[i]);
}

void round_to_bf16(float* sum, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) sum[i] = bf16(sum[i]);
}

template <typename R, typename S>
void store(const S* __restrict sum, R* recv, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) recv[i] = static_cast<R>(sum[i]);
}

/// Sixteen partial sums, then their sum in order.
template <typename R>
double squares(const R* values, std::int64_t count) {
  std::array<double, kLanes> lanes{};
  const std::int64_t whole = count / kLanes * kLanes;
  for (std::int64_t i = 0; i < whole; i += kLanes)
    for (std::int64_t lane = 0; lane < kLanes; ++lane) {
      const double value = static_cast<double>(values[i + lane]);
      lanes[lane] += value * value;
    }
  for (std::int64_t i = whole; i < count; ++i) {
    const double value = static_cast<double>(values[i]);
    lanes[i - whole] += value * value;
  }
  double sum = 0;
  for (const double lane : lanes) sum += lane;
  return sum;
}

template <typename T, typename R>
void reduce_block(const Reduction& r, std::int64_t first, std::int64_t count) {
  alignas(64) Sum<T> sum[kNormBlock];
  const auto source = [&](std::size_t s) {
    return reinterpret_cast<const T*>(r.sources[s]) + first;
  };
  R* recv = reinterpret_cast<R*>(r.recv) + first;
  if (r.sources.size() == 1)
    widen(source(0), sum, count);
  else
    add_first_two(source(0), source(1), sum, count);
  for (std::size_t s = 2; s < r.sources.size(); ++s) add(source(s), sum, count);
  if (r.accumulate) add_old(recv, sum, count);
  if constexpr (std::is_same_v<Sum<T>, float>)
    if (r.round_to_bf16) round_to_bf16(sum, count);
  store(sum, recv, count);
  if constexpr (kFloat<R>)
    if (r.sum_of_squares != nullptr) *r.sum_of_squares += squares(recv, count);
}

template <typename T, typename R = T>
void reduce_blocks(const Reduction& r) {
  for (std::int64_t first = 0; first < r.count; first += kNormBlock)
    reduce_block<T, R>(r, first, std::min(kNormBlock, r.count - first));
}

template <typename T>
void reduce_float(const Reduction& r) {
  if (r.recv_type == DType::f32) return reduce_blocks<T, float>(r);
  if (r.recv_type == DType::bf16) return reduce_blocks<T, bf16>(r);
  reduce_blocks<T, f16>(r);
}

ASHLAR_VECTOR_CLONES void reduce_any(const Reduction& r) {
  switch (r.source_type) {
    case DType::f32:
      return reduce_float<float>(r);
    case DType::bf16:
      return reduce_float<bf16>(r);
    case DType::f16:
      return reduce_float<f16>(r);
    case DType::f64:
      return reduce_blocks<double>(r);
    case DType::i32:
      return reduce_blocks<std::int32_t>(r);
    case DType::i64:
      return reduce_blocks<std::int64_t>(r);
    case DType::u8:
      return reduce_blocks<std::uint8_t>(r);
  }
}

template <typename R>
double squares_in_blocks(const std::byte* data, std::int64_t count) {
  const R* values = reinterpret_cast<const R*>(data);
  double sum = 0;
  for (std::int64_t first = 0; first < count; first += kNormBlock)
    sum += squares(values + first, std::min(kNormBlock, count - first));
  return sum;
}

ASHLAR_VECTOR_CLONES double squares_any(const std::byte* data, DType dtype, std::int64_t count) {
  switch (dtype) {
    case DType::f32:
      return squares_in_blocks<float>(data, count);
    case DType::bf16:
      return squares_in_blocks<bf16>(data, count);
    case DType::f16:
      return squares_in_blocks<f16>(data, count);
    case DType::f64:
      return squares_in_blocks<double>(data, count);
    default:
      return 0;
  }
}

bool sums_in_fp32(DType dtype) {
  return dtype == DType::f32 || dtype == DType::bf16 || dtype == DType::f16;
}

}  // namespace

bool can_reduce(DType source, DType recv) {
  return source == recv || (sums_in_fp32(source) && sums_in_fp32(recv));
}

void reduce(const Reduction& reduction) {
  if (!can_reduce(reduction.source_type, reduction.recv_type))
    throw InvalidArgument("cannot sum " + std::string(name_of(reduction.source_type)) + " into " +
                          std::string(name_of(reduction.recv_type)));
  reduce_any(reduction);
}

double sum_of_squares(const TensorView& values) {
  return squares_any(values.data, values.dtype, values.elements());
}

}  // namespace ashlar::detail
