// Element-wise rows: eight elements per thread where all operands are contiguous, one where an
// operand is read through its strides.
#include <cmath>

#include "cuda/kernels/functions.hpp"
#include "cuda/kernels/host.hpp"
#include "cuda/kernels/loops.hpp"

namespace ashlar::cuda {
namespace {

template <class F, typename Out, typename In>
__global__ void map(F f, std::int64_t n, Out* y, const In* x) {
  const std::int64_t i = thread_in_grid() * kPack, left = n - i;
  if (left <= 0) return;
  Pack v = load_pack(x + i, left);
  for (float& element : v.at) element = f(element);
  store_pack(v, y + i, left);
}

template <class F, typename T>
__global__ void map_pairs(F f, std::int64_t n, T* y, const T* a, const T* b) {
  const std::int64_t i = thread_in_grid() * kPack, left = n - i;
  if (left <= 0) return;
  Pack v = load_pack(a + i, left);
  const Pack w = load_pack(b + i, left);
  for (int k = 0; k < kPack; ++k) v.at[k] = f(v.at[k], w.at[k]);
  store_pack(v, y + i, left);
}

template <class F, typename T>
__global__ void map_strided(F f, std::int64_t n, Loops<2> loops, T* y, const T* a, const T* b) {
  const std::int64_t i = thread_in_grid();
  if (i >= n) return;
  const auto at = positions_of(loops, i);
  y[i] = from_float<T>(f(to_float(a[at[0]]), to_float(b[at[1]])));
}

template <class F>
void unary(const KernelArguments& a, F f) {
  const TensorView &x = a.inputs[0], &y = a.outputs[0];
  const std::int64_t n = y.elements();
  if (n == 0) return;
  with_float(y.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch(grid_of_packs(n), dim3(kBlock), 0, a.context.stream, map<F, T, T>, f, n, y.as<T>(),
           x.as<const T>());
  });
}

template <class F>
void binary(const KernelArguments& arguments, F f) {
  const TensorView &a = arguments.inputs[0], &b = arguments.inputs[1], &y = arguments.outputs[0];
  const std::int64_t n = y.elements();
  if (n == 0) return;
  with_float(y.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    if (a.contiguous() && b.contiguous()) {
      launch(grid_of_packs(n), dim3(kBlock), 0, arguments.context.stream, map_pairs<F, T>, f, n,
             y.as<T>(), a.as<const T>(), b.as<const T>());
    } else {
      launch(grid_of_threads(n), dim3(kBlock), 0, arguments.context.stream, map_strided<F, T>, f, n,
             merge_axes<2>(y.shape, {a.strides, b.strides}), y.as<T>(), a.as<const T>(),
             b.as<const T>());
    }
  });
}

template <typename T>
__global__ void swiglu_gradients(std::int64_t n, const T* gate, const T* up, const T* dy, T* dgate,
                                 T* dup) {
  const std::int64_t i = thread_in_grid() * kPack, left = n - i;
  if (left <= 0) return;
  const Pack g = load_pack(gate + i, left), u = load_pack(up + i, left),
             d = load_pack(dy + i, left);
  Pack of_gate, of_up;
  for (int k = 0; k < kPack; ++k) {
    of_gate.at[k] = d.at[k] * u.at[k] * silu_slope(g.at[k]);
    of_up.at[k] = d.at[k] * silu_of(g.at[k]);
  }
  store_pack(of_gate, dgate + i, left);
  store_pack(of_up, dup + i, left);
}

struct Subtract {
  __device__ float operator()(float a, float b) const { return a - b; }
};
struct Multiply {
  __device__ float operator()(float a, float b) const { return a * b; }
};
struct Divide {
  __device__ float operator()(float a, float b) const { return a / b; }
};
struct GeluBackward {
  __device__ float operator()(float x, float dy) const { return dy * gelu_slope(x); }
};
struct TanhBackward {
  __device__ float operator()(float y, float dy) const { return std::fma(-dy * y, y, dy); }
};
struct SiluBackward {
  __device__ float operator()(float x, float dy) const { return dy * silu_slope(x); }
};
struct Swiglu {
  __device__ float operator()(float gate, float up) const { return silu_of(gate) * up; }
};
struct Scale {
  float factor;
  __device__ float operator()(float x) const { return x * factor; }
};
struct Exp {
  __device__ float operator()(float x) const { return std::exp(x); }
};
struct Log {
  __device__ float operator()(float x) const { return std::log(x); }
};
struct Tanh {
  __device__ float operator()(float x) const { return std::tanh(x); }
};
struct Gelu {
  __device__ float operator()(float x) const { return gelu_of(x); }
};
struct Silu {
  __device__ float operator()(float x) const { return silu_of(x); }
};
struct Same {
  __device__ float operator()(float x) const { return x; }
};

}  // namespace

void add(const KernelArguments& a) { binary(a, Add()); }
void subtract(const KernelArguments& a) { binary(a, Subtract()); }
void multiply(const KernelArguments& a) { binary(a, Multiply()); }
void divide(const KernelArguments& a) { binary(a, Divide()); }
void gelu_backward(const KernelArguments& a) { binary(a, GeluBackward()); }
void tanh_backward(const KernelArguments& a) { binary(a, TanhBackward()); }
void silu_backward(const KernelArguments& a) { binary(a, SiluBackward()); }
void swiglu(const KernelArguments& a) { binary(a, Swiglu()); }
void exp(const KernelArguments& a) { unary(a, Exp()); }
void log(const KernelArguments& a) { unary(a, Log()); }
void tanh(const KernelArguments& a) { unary(a, Tanh()); }
void gelu(const KernelArguments& a) { unary(a, Gelu()); }
void silu(const KernelArguments& a) { unary(a, Silu()); }
void scale(const KernelArguments& a) {
  unary(a, Scale{static_cast<float>(a.attributes.number("factor"))});
}

void cast(const KernelArguments& a) {
  const TensorView &x = a.inputs[0], &y = a.outputs[0];
  const std::int64_t n = y.elements();
  if (n == 0) return;
  with_float(x.dtype, [&](auto from) {
    with_float(y.dtype, [&](auto to) {
      using In = typename decltype(from)::type;
      using Out = typename decltype(to)::type;
      launch(grid_of_packs(n), dim3(kBlock), 0, a.context.stream, map<Same, Out, In>, Same(), n,
             y.as<Out>(), x.as<const In>());
    });
  });
}

void swiglu_backward(const KernelArguments& a) {
  const std::int64_t n = a.outputs[0].elements();
  if (n == 0) return;
  with_float(a.outputs[0].dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch(grid_of_packs(n), dim3(kBlock), 0, a.context.stream, swiglu_gradients<T>, n,
           a.inputs[0].as<const T>(), a.inputs[1].as<const T>(), a.inputs[2].as<const T>(),
           a.outputs[0].as<T>(), a.outputs[1].as<T>());
  });
}

}  // namespace ashlar::cuda
