// Sums over axes of a tensor that may be strided, in two stages: chunks of terms into partials,
// then the partials in their order. All additions are in double, a sum is rounded once.
#include "cuda/kernels/columns.hpp"
#include "cuda/kernels/loops.hpp"

namespace ashlar::cuda {
namespace {

constexpr std::int64_t kTerms = 1024;  // of a partial
constexpr std::int64_t kRows = 64;     // of a partial of columns

/// Axes that stay and axes that are summed.
struct Split {
  Loops<1> kept, summed;
  std::int64_t outputs = 1, terms = 1;
};

std::int64_t elements_of(const Loops<1>& loops) {
  std::int64_t product = 1;
  for (int axis = 0; axis < loops.rank; ++axis)
    product *= loops.extents[static_cast<std::size_t>(axis)];
  return product;
}

/// The axes of x that are in the mask, or those that are not.
Loops<1> axes_of(const Shape& extents, const Shape& strides, std::int64_t mask, bool in_mask) {
  Shape shape = extents;
  for (int axis = 0; axis < shape.rank(); ++axis)
    if ((((mask >> axis) & 1) != 0) != in_mask) shape[axis] = 1;
  return merge_axes<1>(shape, {strides});
}

Split split(const Shape& shape, const Shape& strides, std::int64_t mask) {
  const Loops<1> kept = axes_of(shape, strides, mask, false);
  const Loops<1> summed = axes_of(shape, strides, mask, true);
  return {kept, summed, elements_of(kept), elements_of(summed)};
}

/// Rows are summed, neighbouring columns stay: a bias gradient.
bool sums_columns(const Split& s) {
  return s.outputs > 1 && s.kept.rank == 1 && s.summed.rank == 1 && s.kept.inner_strides()[0] == 1;
}

/// Adds a pack of a row.
template <typename T>
struct RowTerms {
  const T* x;
  std::int64_t stride;
  __device__ void operator()(std::int64_t row, std::int64_t column, std::int64_t left,
                             PackOf<double> (&sums)[1]) const {
    const Pack v = load_pack(x + row * stride + column, left);
    for (int k = 0; k < kPack; ++k) sums[0].at[k] += static_cast<double>(v.at[k]);
  }
};

/// The terms [first, end) of a chunk.
__device__ std::int64_t end_of_chunk(std::int64_t first, std::int64_t terms) {
  return first + kTerms < terms ? first + kTerms : terms;
}

__device__ inline void store_total(double total, double* to) { *to = total; }
template <typename Out>
__device__ inline void store_total(double total, Out* to) {
  *to = from_float<Out>(static_cast<float>(total));
}

/// A block per output and chunk of terms.
template <typename T, typename Out>
__global__ void sum_by_block(Split s, const T* x, Out* sums) {
  const std::int64_t output = blockIdx.x % s.outputs, chunk = blockIdx.x / s.outputs;
  const std::int64_t first = chunk * kTerms, end = end_of_chunk(first, s.terms);
  const T* from = x + positions_of(s.kept, output)[0];
  double total = 0;
  for (std::int64_t term = first + threadIdx.x; term < end; term += kBlock)
    total += static_cast<double>(to_float(from[positions_of(s.summed, term)[0]]));
  total = join_team<kBlock>(total, Add());
  if (threadIdx.x == 0) store_total(total, sums + blockIdx.x);
}

/// A thread per output and chunk of terms: where neighbouring outputs lie closer than terms.
template <typename T, typename Out>
__global__ void sum_by_thread(Split s, std::int64_t sums_wanted, const T* x, Out* sums) {
  const std::int64_t i = thread_in_grid(), first = i / s.outputs * kTerms;
  if (i >= sums_wanted) return;
  const std::int64_t end = end_of_chunk(first, s.terms);
  const T* from = x + positions_of(s.kept, i % s.outputs)[0];
  double total = 0;
  for (std::int64_t term = first; term < end; ++term)
    total += static_cast<double>(to_float(from[positions_of(s.summed, term)[0]]));
  store_total(total, sums + i);
}

/// A team per output adds the chunks.
template <int threads, typename Out>
__global__ void add_chunks(const double* partials, std::int64_t outputs, std::int64_t chunks,
                           Out* y) {
  const std::int64_t output = team_row<threads>();
  if (output >= outputs) return;
  double total = 0;
  for (std::int64_t chunk = team_thread<threads>(); chunk < chunks; chunk += threads)
    total += partials[chunk * outputs + output];
  total = join_team<threads>(total, Add());
  if (team_thread<threads>() == 0) store_total(total, y + output);
}

/// One sum per output and chunk; no terms make one chunk of them.
template <typename T, typename Out>
void sum_chunks(StreamRef stream, const Split& s, std::int64_t chunks, const T* x, Out* sums) {
  const std::int64_t count = s.outputs * chunks;
  if (s.outputs > 1 && s.kept.inner_strides()[0] < s.summed.inner_strides()[0]) {
    launch(grid_of_threads(count), dim3(kBlock), 0, stream, sum_by_thread<T, Out>, s, count, x,
           sums);
  } else {
    launch(grid_of(count), dim3(kBlock), 0, stream, sum_by_block<T, Out>, s, x, sums);
  }
}

std::int64_t chunks_of(const Split& s) { return s.terms == 0 ? 1 : ceil_div(s.terms, kTerms); }

}  // namespace

std::int64_t sum_workspace(const OpShapes& shapes) {
  const Shape& shape = shapes.inputs[0].shape;
  const Split s = split(shape, contiguous_strides(shape), shapes.attributes.integer("axes"));
  const std::int64_t partials = sums_columns(s)     ? ceil_div(s.terms, kRows)
                                : chunks_of(s) == 1 ? 0
                                                    : chunks_of(s);
  return partials * s.outputs * size_of(DType::f64);
}

void sum(const KernelArguments& a) {
  const TensorView &x = a.inputs[0], &y = a.outputs[0];
  const std::int64_t axes = a.attributes.integer("axes");
  const Split s = split(x.shape, x.strides, axes);
  if (s.outputs == 0) return;
  if (sums_columns(s) && sums_columns(split(x.shape, contiguous_strides(x.shape), axes)))
    return with_float(x.dtype, [&](auto from) {
      using T = typename decltype(from)::type;
      const RowTerms<T> terms{x.as<const T>(), s.summed.inner_strides()[0]};
      sum_columns<1, double>(a.context.stream, terms, s.terms, kRows, s.outputs, a.workspace,
                             a.outputs);
    });
  const std::int64_t chunks = chunks_of(s);
  auto* partials = reinterpret_cast<double*>(a.workspace);
  with_float(x.dtype, [&](auto from) {
    with_float(y.dtype, [&](auto to) {
      using T = typename decltype(from)::type;
      using Out = typename decltype(to)::type;
      if (chunks == 1) return sum_chunks(a.context.stream, s, 1, x.as<const T>(), y.as<Out>());
      sum_chunks(a.context.stream, s, chunks, x.as<const T>(), partials);
      with_team(chunks, [&](auto threads) {
        launch(grid_of_teams<threads>(s.outputs), dim3(kBlock), 0, a.context.stream,
               add_chunks<threads, Out>, partials, s.outputs, chunks, y.as<Out>());
      });
    });
  });
}

namespace {

/// Squares of kTerms elements, added in double.
template <typename T>
__global__ void square_partials(std::int64_t n, const T* x, double* partials) {
  const std::int64_t first = blockIdx.x * kTerms, end = end_of_chunk(first, n);
  double total = 0;
  for (std::int64_t i = first + threadIdx.x * std::int64_t{kPack}; i < end; i += kBlock * kPack) {
    const Pack v = load_pack(x + i, end - i);
    for (const float element : v.at)
      total += static_cast<double>(element) * static_cast<double>(element);
  }
  total = join_team<kBlock>(total, Add());
  if (threadIdx.x == 0) partials[blockIdx.x] = total;
}

__global__ void total_of_partials(const double* partials, std::int64_t blocks, double* out) {
  double total = 0;
  for (std::int64_t i = threadIdx.x; i < blocks; i += kBlock) total += partials[i];
  total = join_team<kBlock>(total, Add());
  if (threadIdx.x == 0) *out = total;
}

}  // namespace

std::int64_t sum_of_squares_workspace(std::int64_t elements) {
  return ceil_div(elements, kTerms) * size_of(DType::f64);
}

void sum_of_squares(StreamRef stream, const TensorView& x, double* out, std::byte* workspace) {
  const std::int64_t n = x.elements(), blocks = ceil_div(n, kTerms);
  auto* partials = reinterpret_cast<double*>(workspace);
  with_float(x.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    if (blocks > 0)
      launch(grid_of(blocks), dim3(kBlock), 0, stream, square_partials<T>, n, x.as<const T>(),
             partials);
  });
  launch(dim3(1), dim3(kBlock), 0, stream, total_of_partials, static_cast<const double*>(partials),
         blocks, out);
}

}  // namespace ashlar::cuda
