// Constants that expansions read: written for clarity, not for speed.
#include <algorithm>
#include <type_traits>

#include "ops/attention_kernels.hpp"
#include "ops/check.hpp"
#include "ops/softmax_kernels.hpp"
#include "ops/with_dtype.hpp"

namespace ashlar::kernels {

void target_weights(const KernelArguments& a) {
  const TensorView &targets = a.inputs[0], &weights = a.outputs[0];
  const auto* target = targets.as<std::int32_t>();
  const std::int64_t rows = targets.elements(), n = weights.shape[-1];
  const auto counted = std::count_if(target, target + rows, [](std::int32_t t) { return t >= 0; });
  with_float(weights.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using Wide = std::conditional_t<std::is_same_v<T, double>, double, float>;
    T* out = weights.as<T>();
    std::fill(out, out + weights.elements(), T(0.0F));
    for (std::int64_t row = 0; row < rows; ++row) {
      require(target[row] < n, "target_weights: target {} at index {} is not below {}", target[row],
              row, n);
      if (target[row] >= 0) out[row * n + target[row]] = T(Wide{1} / static_cast<Wide>(counted));
    }
  });
}

void causal_mask(const KernelArguments& a) {
  const std::int64_t positions = a.outputs[0].shape[0];
  const TensorView& boundaries = a.inputs[0];
  const auto* boundary = boundaries.as<const std::int32_t>();
  const auto* end = boundary == nullptr ? nullptr : boundary + boundaries.elements();
  with_float(a.outputs[0].dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    T* out = a.outputs[0].as<T>();
    for (std::int64_t query = 0; query < positions; ++query) {
      const std::int64_t first =
          boundary == nullptr ? 0 : *(std::upper_bound(boundary, end, query) - 1);
      for (std::int64_t key = 0; key < positions; ++key)
        out[query * positions + key] = first <= key && key <= query ? T(0.0F) : T(-1e30F);
    }
  });
}

}  // namespace ashlar::kernels
