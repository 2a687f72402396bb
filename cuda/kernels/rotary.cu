// Rotary position embedding (Su et al., arXiv:2104.09864, section 3.2.2): each pair of channels is
// turned by an angle that grows with the position.
#include <cmath>

#include "cuda/kernels/host.hpp"
#include "ops/rotary_kernels.hpp"

namespace ashlar::cuda {
namespace {

struct Rotation {
  std::int64_t rows, row_positions, heads, half;  // half: pairs of a head
  std::int64_t offset;
  double direction, slope;        // slope: logarithm of the ratio of neighbouring frequencies
  const std::int32_t* positions;  // per row; may be null
};

/// A thread turns one pair of channels of one row, in all heads. y may be x.
template <typename T>
__global__ void turn(Rotation r, const T* x, T* y) {
  const std::int64_t i = thread_in_grid(), row = i / r.half, pair = i % r.half;
  if (row >= r.rows) return;
  const std::int64_t place = r.positions == nullptr ? row % r.row_positions : r.positions[row];
  const double frequency = r.direction * std::exp(r.slope * static_cast<double>(pair));
  const double angle = static_cast<double>(place + r.offset) * frequency;
  const auto cosine = static_cast<float>(std::cos(angle));
  const auto sine = static_cast<float>(std::sin(angle));
  for (std::int64_t head = 0; head < r.heads; ++head) {
    const std::int64_t low = (row * r.heads + head) * 2 * r.half + pair, high = low + r.half;
    const float a = to_float(x[low]), b = to_float(x[high]);
    y[low] = from_float<T>(std::fma(-b, sine, a * cosine));
    y[high] = from_float<T>(std::fma(a, sine, b * cosine));
  }
}

}  // namespace

void rotary(const KernelArguments& a) {
  const TensorView& x = a.inputs[0];
  if (x.elements() == 0) return;
  const std::int64_t heads = a.attributes.integer("heads"), half = x.shape[2] / heads / 2;
  const Rotation rotation{
      .rows = x.shape[0] * x.shape[1],
      .row_positions = x.shape[1],
      .heads = heads,
      .half = half,
      .offset = a.attributes.integer("offset"),
      .direction = static_cast<double>(a.attributes.integer("direction")),
      .slope = -std::log(a.attributes.number("base")) / static_cast<double>(half),
      .positions = a.inputs[1].as<const std::int32_t>()};
  with_float(x.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch(grid_of_threads(rotation.rows * half), dim3(kBlock), 0, a.context.stream, turn<T>,
           rotation, x.as<const T>(), a.outputs[0].as<T>());
  });
}

}  // namespace ashlar::cuda
