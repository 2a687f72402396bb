// The backward of gelu and of the bias before it, in one pass over memory.
#include "cuda/kernels/columns.hpp"
#include "cuda/kernels/functions.hpp"
#include "ops/product/gelu_columns.hpp"

namespace ashlar::cuda {
namespace {

/// Writes dh = gelu'(h) dy and adds it, as rounded. dh may be dy or h.
template <typename T>
struct GeluTerms {
  const T *h, *dy;
  T* dh;
  std::int64_t n;
  __device__ void operator()(std::int64_t row, std::int64_t column, std::int64_t left,
                             Pack (&sums)[1]) const {
    const std::int64_t at = row * n + column;
    const Pack x = load_pack(h + at, left);
    Pack g = load_pack(dy + at, left);
    for (int k = 0; k < kPack; ++k) {
      g.at[k] *= gelu_slope(x.at[k]);
      sums[0].at[k] += to_float(from_float<T>(g.at[k]));
    }
    store_pack(g, dh + at, left);
  }
};

}  // namespace

void gelu_columns_backward(const KernelArguments& a) {
  const TensorView& h = a.inputs[0];
  const std::int64_t n = h.shape[-1], rows = n == 0 ? 0 : h.elements() / n;
  with_float(h.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const GeluTerms<T> terms{h.as<T>(), a.inputs[1].as<T>(), a.outputs[0].as<T>(), n};
    sum_columns<1>(a.context.stream, terms, rows, kGeluBlockRows, n, a.workspace,
                   a.outputs.subspan(1));
  });
}

}  // namespace ashlar::cuda
