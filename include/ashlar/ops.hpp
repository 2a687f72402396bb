// The operations that model code is written with. Each function appends one node (views append a
// node that runs nothing); shapes are noted beside the arguments, B batch, T positions, C channels,
// H heads, V vocabulary.
#pragma once

#include <cstdint>
#include <source_location>
#include <utility>

#include "ashlar/graph.hpp"

namespace ashlar {

using Where = std::source_location;

// Products. Interior sums in fp32 (fp64 for f64); the result is rounded once.
struct MatmulOptions {
  bool transpose_a = false;
  bool transpose_b = false;
  DType dtype = DType::u8;  // of the result; u8: as the inputs
};
/// a (..., m, k) x b (..., k, n) -> (..., m, n); b may lack the leading axes. Transposed operands
/// are given as (k, m), (n, k).
Value matmul(Value a, Value b, MatmulOptions options = {}, Where where = Where::current());
/// x (..., K) x weight (K, N) + bias (N) -> (..., N). The bias may be absent.
Value linear(Value x, Value weight, Value bias, Where where = Where::current());
/// gelu(linear(x, weight, bias)), the activation applied while the product is in cache.
Value linear_gelu(Value x, Value weight, Value bias, Where where = Where::current());
/// Mean over the tokens of -log softmax(x weight^T)[target]: x (..., C), weight (V, C), targets i32
/// (...) -> f32 scalar. Runs in chunks of rows: whole logits never exist. A target below 0 is
/// ignored and does not count.
Value linear_cross_entropy(Value x, Value weight, Value targets, Where where = Where::current());

// Transformer.
/// gelu, tanh approximation (Hendrycks and Gimpel, arXiv:1606.08415, section 2).
Value gelu(Value x, Where where = Where::current());
/// Normalises the last axis (Ba et al., arXiv:1607.06450): x (..., C), weight (C), bias (C).
Value layer_norm(Value x, Value weight, Value bias, double epsilon = 1e-5,
                 Where where = Where::current());
/// (sum, layer_norm(sum)) of sum = x + residual in one pass over memory.
std::pair<Value, Value> add_layer_norm(Value x, Value residual, Value weight, Value bias,
                                       double epsilon = 1e-5, Where where = Where::current());
/// Causal attention (Dao et al., arXiv:2205.14135: the T x T matrix is never stored): qkv (B, T,
/// 3C) holds queries, keys and values side by side, heads inside each -> (B, T, C).
Value causal_attention(Value qkv, int heads, Where where = Where::current());
/// token_table (V, C) rows of tokens i32 (B, T), plus position_table (P, C) rows 0..T-1 (may be
/// absent) -> (B, T, C). The gradient is summed per row in token order: deterministic.
Value embedding(Value tokens, Value token_table, Value position_table,
                Where where = Where::current());
/// Zeroes elements with the given probability and scales the rest by 1 / (1 - probability). The
/// first axis is the sample axis; random numbers are a function of (seed, step, micro-batch, op,
/// global sample, element). 0 returns x itself.
Value dropout(Value x, double probability, Where where = Where::current());
Value softmax(Value x, Where where = Where::current());  // over the last axis
/// logits (..., V), targets i32 (...) -> mean over tokens, f32 (f64 for f64 logits). Targets below
/// 0 are ignored.
Value cross_entropy(Value logits, Value targets, Where where = Where::current());

// Llama-style transformers.
/// x / sqrt(mean(x^2) + epsilon) weight over the last axis (Zhang and Sennrich, arXiv:1910.07467,
/// section 4): x (..., C), weight (C).
Value rms_norm(Value x, Value weight, double epsilon = 1e-5, Where where = Where::current());
/// x logistic(x), also known as swish (Elfwing et al., arXiv:1702.03118).
Value silu(Value x, Where where = Where::current());
/// silu(gate) up, of equal shapes, in one pass over memory (Shazeer, arXiv:2002.05202, section 2).
Value swiglu(Value gate, Value up, Where where = Where::current());
struct RotaryOptions {
  double base = 10000;      // of the angles: base^(-2i/D)
  std::int64_t offset = 0;  // added to all positions
  Value positions = {};     // i32 (B, T); absent: 0 .. T-1 in each sample
};
/// Rotary position embedding (Su et al., arXiv:2104.09864, section 3.2.2): x (B, T, heads D), D
/// even. Channels i and i + D/2 of a head are a pair (the half-split convention of converted Llama
/// weights), turned by position base^(-2i/D). Angles are computed in double.
Value rotary(Value x, int heads, RotaryOptions options = {}, Where where = Where::current());
/// Causal attention whose heads share keys and values in `kv_heads` groups of neighbours (Ainslie
/// et al., arXiv:2305.13245): q (B, T, heads D), k and v (B, T, kv_heads D) -> (B, T, heads D). The
/// T x T matrix is never stored. With boundaries i32 (S + 1), 0 first, B T last, never falling,
/// rows [b_s, b_s+1) of the B T rows are sequence s (it may be empty), and nothing is seen across:
/// sequences of any lengths without padding.
Value grouped_query_attention(Value q, Value k, Value v, int heads, int kv_heads,
                              Value boundaries = {}, Where where = Where::current());

// Images, channels last: batch N, height H, width W, channels C.
struct Conv2dOptions {
  std::int64_t stride = 1;
  std::int64_t padding = 0;  // zeros on each of the four sides
};
/// x (N, H, W, Cin), weight (kh, kw, Cin, Cout), bias (Cout), which may be absent -> (N, (H + 2
/// padding - kh) / stride + 1, ..., Cout), rounded down; sums of x[i + a, j + b] weight[a, b]
/// (cross-correlation), in fp32 (fp64 for f64), rounded once. Deterministic for any number of
/// threads, gradients too. A kernel of H x W is a linear layer over whole images.
Value conv2d(Value x, Value weight, Value bias, Conv2dOptions options = {},
             Where where = Where::current());
/// The largest of each window of kernel x kernel pixels, per channel; stride 0: the kernel's. x (N,
/// H, W, C) -> (N, (H - kernel) / stride + 1, ..., C), rounded down. The gradient goes to the
/// window's first largest element, row by row. Backward keeps a byte per result (so kernel is at
/// most 16) and not x. NaN counts as largest.
Value max_pool2d(Value x, std::int64_t kernel, std::int64_t stride = 0,
                 Where where = Where::current());
/// The mean of each window, as max_pool2d.
Value average_pool2d(Value x, std::int64_t kernel, std::int64_t stride = 0,
                     Where where = Where::current());

// Element-wise, with broadcasting of either side.
Value add(Value a, Value b, Where where = Where::current());
Value subtract(Value a, Value b, Where where = Where::current());
Value multiply(Value a, Value b, Where where = Where::current());
Value divide(Value a, Value b, Where where = Where::current());
Value scale(Value x, double factor, Where where = Where::current());
Value exp(Value x, Where where = Where::current());
Value log(Value x, Where where = Where::current());
Value tanh(Value x, Where where = Where::current());
Value cast(Value x, DType dtype,
           Where where = Where::current());  // x itself when it has the type already
/// All elements equal `value`.
Value constant(Tracer& tracer, double value, DType dtype, const Shape& shape,
               Where where = Where::current());

// Views (no copy) and layout.
Value reshape(Value x, const Shape& shape, Where where = Where::current());
Value transpose(Value x, int axis_a, int axis_b, Where where = Where::current());
Value slice(Value x, int axis, std::int64_t begin, std::int64_t end,
            Where where = Where::current());
Value broadcast_to(Value x, const Shape& shape, Where where = Where::current());
/// x (N, ...) rows at indices i32 (any shape) -> (indices..., ...). The gradient sums the rows of
/// repeated indices in order: deterministic. x may hold integers. An index outside of [0, N) is an
/// error.
Value take(Value x, Value indices, Where where = Where::current());
Value contiguous(Value x, Where where = Where::current());  // a copy unless x is contiguous already
Value alias(Value x, Where where = Where::current());       // x as a value of its own, same memory
/// x, as a constant to derivatives of either mode.
Value stop_gradient(Value x, Where where = Where::current());

// Reductions, in a fixed order.
/// Sums the axes that are set in the mask (bit i: axis i) and drops them.
Value sum(Value x, std::uint32_t axes, Where where = Where::current());
Value sum(Value x, Where where = Where::current());   // all axes
Value mean(Value x, Where where = Where::current());  // all axes

}  // namespace ashlar
