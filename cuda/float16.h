// The 16-bit floats of dtype.hpp on both sides of device.h, with the same bits but for those of
// NaN.
#pragma once

#include <bit>
#include <cstdint>

#include "ashlar/dtype.hpp"
#ifdef __CUDACC__
#include <cuda_fp16.h>
#endif

namespace ashlar::cuda {

namespace detail {

__device__ __forceinline__ float half_to_float(std::uint16_t bits) {
#ifdef __CUDACC__
  return __half2float(__ushort_as_half(bits));
#else
  return static_cast<float>(std::bit_cast<_Float16>(bits));
#endif
}

__device__ __forceinline__ std::uint16_t float_to_half(float value) {
#ifdef __CUDACC__
  return __half_as_ushort(__float2half_rn(value));
#else
  return std::bit_cast<std::uint16_t>(static_cast<_Float16>(value));
#endif
}

}  // namespace detail

/// Widening; exact. The payload of a NaN is not kept.
__device__ __forceinline__ float to_float(float value) { return value; }
__device__ __forceinline__ float to_float(bf16 value) { return value; }
__device__ __forceinline__ float to_float(f16 value) { return detail::half_to_float(value.bits); }

/// Rounds to nearest even: from_float<bf16>(x). NaN becomes a quiet NaN.
template <typename T>
__device__ __forceinline__ T from_float(float value) {
  return T(value);
}
template <>
__device__ __forceinline__ f16 from_float<f16>(float value) {
  return std::bit_cast<f16>(detail::float_to_half(value));
}

/// The two bf16 of a 32-bit word, the lower address first, and back.
__device__ __forceinline__ float2 unpack_bf16(std::uint32_t word) {
  return {std::bit_cast<float>(word << 16), std::bit_cast<float>(word & 0xffff0000U)};
}
__device__ __forceinline__ std::uint32_t pack_bf16(float low, float high) {
  return static_cast<std::uint32_t>(bf16(low).bits) | static_cast<std::uint32_t>(bf16(high).bits)
                                                          << 16;
}

}  // namespace ashlar::cuda
