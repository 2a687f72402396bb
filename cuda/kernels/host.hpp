// What the host side of the kernels shares: element types and grids. Grids depend on shapes and
// element types alone.
#pragma once

#include <cstdint>
#include <string>

#include "ashlar/error.hpp"
#include "ashlar/op.hpp"
#include "cuda/device.h"
#include "cuda/kernels.hpp"
#include "cuda/kernels/team.hpp"

namespace ashlar::cuda {

template <typename T>
struct TypeTag {
  using type = T;
};

/// Calls f(TypeTag<float | bf16>{}). @throws InvalidArgument for other types.
template <class F>
void with_float(DType dtype, const F& f) {
  if (dtype == DType::f32) return f(TypeTag<float>{});
  if (dtype == DType::bf16) return f(TypeTag<bf16>{});
  throw InvalidArgument("on CUDA kernels compute in f32 and bf16, not in " +
                        std::string(name_of(dtype)) + ": cast first, or run on the CPU");
}

constexpr std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

inline dim3 grid_of(std::int64_t x, std::int64_t y = 1) {
  return dim3(static_cast<unsigned>(x), static_cast<unsigned>(y));
}

/// Blocks of kBlock threads for `threads` threads.
inline dim3 grid_of_threads(std::int64_t threads) { return grid_of(ceil_div(threads, kBlock)); }

/// Blocks for n elements, a pack per thread.
inline dim3 grid_of_packs(std::int64_t n) { return grid_of_threads(ceil_div(n, kPack)); }

}  // namespace ashlar::cuda
