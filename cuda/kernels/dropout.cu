// Dropout with random numbers that are a function of position: the CPU's counters, the CPU's mask.
#include <cmath>

#include "base/math/philox.hpp"
#include "cuda/kernels/host.hpp"
#include "cuda/kernels/scalars.hpp"
#include "ops/dropout_kernels.hpp"

namespace ashlar::cuda {
namespace {

struct Mask {
  std::int64_t op_key;
  std::uint64_t origin;     // global index of element 0
  std::uint32_t threshold;  // words below drop
  float scale;
};

__device__ std::uint32_t word_of(const RandomWords& words, std::uint64_t k) {
  return k == 0 ? words[0] : k == 1 ? words[1] : k == 2 ? words[2] : words[3];
}

/// y = x / (1 - p) where the word reaches p, else 0.
template <typename T>
__global__ void drop(Mask mask, RunScalars captured, const RunScalars* on_device, std::int64_t n,
                     const T* x, T* y) {
  const std::int64_t i = thread_in_grid() * kPack, left = n - i;
  if (left <= 0) return;
  const RunScalars run = scalars_of_run(captured, on_device);
  const std::uint64_t key = kernels::dropout_key(run.seed, mask.op_key);
  const std::uint64_t stream = kernels::dropout_stream(run.step, run.micro_batch);
  const std::uint64_t first = mask.origin + static_cast<std::uint64_t>(i);
  Pack v = load_pack(x + i, left);
  RandomWords words = philox(key, stream, first / 4);
  for (unsigned k = 0; k < kPack; ++k) {
    const std::uint64_t element = first + k;
    if (k > 0 && element % 4 == 0) words = philox(key, stream, element / 4);
    v.at[k] = word_of(words, element % 4) < mask.threshold ? 0.0F : v.at[k] * mask.scale;
  }
  store_pack(v, y + i, left);
}

}  // namespace

void dropout(const KernelArguments& a) {
  const TensorView& x = a.inputs[0];
  const std::int64_t n = x.elements();
  if (n == 0) return;
  const double probability = a.attributes.number("probability");
  const Mask mask{.op_key = a.attributes.integer("key"),
                  .origin = static_cast<std::uint64_t>(a.context.first_sample * (n / x.shape[0])),
                  .threshold = static_cast<std::uint32_t>(std::ldexp(probability, 32)),
                  .scale = static_cast<float>(1 / (1 - probability))};
  with_float(x.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch(grid_of_packs(n), dim3(kBlock), 0, a.context.stream, drop<T>, mask, a.context,
           a.context.on_device, n, x.as<const T>(), a.outputs[0].as<T>());
  });
}

}  // namespace ashlar::cuda
