// What expansions of rows are written with. A row of backward is expanded as the derivative of its
// forward, written in small ops.
#pragma once

#include <initializer_list>
#include <vector>

#include "ashlar/autodiff.hpp"
#include "ops/check.hpp"
#include "ops/reduce.hpp"

namespace ashlar {

/// x in the type that its statistics are kept in.
inline Value wide(Value x) { return cast(x, statistics_dtype(x.dtype())); }

/// The cotangent of x for the cotangent dy of y = f(x), in x's type.
template <typename F>
Value pull(F f, Value x, Value dy) {
  const Function function = [f](std::span<const Value> v) { return std::vector{f(v[0])}; };
  return vjp(function, {&x, 1}).linear({&dy, 1})[0];
}

/// Sums of the rows of x (..., n) -> (..., 1).
inline Value row_sums(Value x) {
  Shape rows = x.shape();
  const int last = rows.rank() - 1;
  rows[last] = 1;
  return reshape(sum(x, 1U << last), rows);
}

/// (rows, last axis) of x.
inline Value as_matrix(Value x) { return reshape(x, {rows_of(x.shape()), x.shape()[-1]}); }

/// softmax(logits) rows scaled by their targets' weights, less those weights at the targets: the
/// gradient of cross_entropy by logits (..., V), in the type of statistics. Targets i32 (...).
Value cross_entropy_slope(Value logits, Value targets);

}  // namespace ashlar
