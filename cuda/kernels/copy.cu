// Rows that move elements of any type: strided copy, zero padding, fill, look-up of whole rows,
// packing of parts into a flat.
#include <bit>

#include "cuda/kernels/host.hpp"
#include "cuda/kernels/loops.hpp"

namespace ashlar::cuda {
namespace {

constexpr std::int64_t kBytes = 16;  // per thread

/// 16 bytes per thread; single bytes where either address is not aligned, and at the end.
__global__ void copy_bytes(std::int64_t n, const std::uint8_t* from, std::uint8_t* to) {
  const std::int64_t i = thread_in_grid() * kBytes;
  if (i >= n) return;
  const auto addresses =
      reinterpret_cast<std::uintptr_t>(from) | reinterpret_cast<std::uintptr_t>(to);
  if (n - i >= kBytes && addresses % kBytes == 0) {
    store16(to + i, load16(from + i));
  } else {
    for (std::int64_t k = i; k < i + kBytes && k < n; ++k) to[k] = from[k];
  }
}

template <typename T>
__global__ void copy_strided(std::int64_t n, Loops<2> loops, const T* from, T* to) {
  const std::int64_t i = thread_in_grid();
  if (i >= n) return;
  const auto at = positions_of(loops, i);
  to[at[1]] = from[at[0]];
}

template <typename T>
__global__ void fill_elements(std::int64_t n, T value, T* to) {
  constexpr std::int64_t kElements = kBytes / static_cast<std::int64_t>(sizeof(T));
  const std::int64_t i = thread_in_grid() * kElements;
  if (i >= n) return;
  if (n - i >= kElements && reinterpret_cast<std::uintptr_t>(to) % kBytes == 0) {
    std::uint64_t word = 0;
    for (unsigned k = 0; k < 8 / sizeof(T); ++k)
      word |= static_cast<std::uint64_t>(value) << (8 * sizeof(T) * k);
    const auto low = static_cast<std::uint32_t>(word),
               high = static_cast<std::uint32_t>(word >> 32);
    store16(to + i, uint4{low, high, low, high});
  } else {
    for (std::int64_t k = i; k < i + kElements && k < n; ++k) to[k] = value;
  }
}

/// One block per row; an index outside the table leaves bytes of ones (for integers: -1).
__global__ void take_rows(std::int64_t rows, std::int64_t bytes, const std::uint8_t* table,
                          const std::int32_t* indices, std::uint8_t* to) {
  const std::int64_t row = blockIdx.x, index = indices[row];
  const bool known = 0 <= index && index < rows;
  for (std::int64_t k = threadIdx.x; k < bytes; k += kBlock)
    to[row * bytes + k] = known ? table[index * bytes + k] : std::uint8_t{0xff};
}

/// Calls f(T{}) with an unsigned integer of `bytes` bytes.
template <class F>
void with_size(std::int64_t bytes, const F& f) {
  if (bytes == 8) return f(std::uint64_t{});
  if (bytes == 4) return f(std::uint32_t{});
  if (bytes == 2) return f(std::uint16_t{});
  f(std::uint8_t{});
}

void copy_flat(StreamRef stream, const void* from, void* to, std::int64_t bytes) {
  if (bytes == 0) return;
  launch(grid_of_threads(ceil_div(bytes, kBytes)), dim3(kBlock), 0, stream, copy_bytes, bytes,
         static_cast<const std::uint8_t*>(from), static_cast<std::uint8_t*>(to));
}

void copy_between(StreamRef stream, const TensorView& from, const TensorView& to) {
  const std::int64_t n = from.elements();
  if (n == 0) return;
  if (from.contiguous() && to.contiguous())
    return copy_flat(stream, from.data, to.data, from.bytes());
  with_size(size_of(from.dtype), [&](auto element) {
    using T = decltype(element);
    launch(grid_of_threads(n), dim3(kBlock), 0, stream, copy_strided<T>, n,
           merge_axes<2>(from.shape, {from.strides, to.strides}), from.as<const T>(), to.as<T>());
  });
}

template <typename T>
void fill(StreamRef stream, T* to, std::int64_t n, T value) {
  if (n == 0) return;
  launch(grid_of_threads(ceil_div(n * static_cast<std::int64_t>(sizeof(T)), kBytes)), dim3(kBlock),
         0, stream, fill_elements<T>, n, value, to);
}

/// The bits of one element.
std::uint64_t bits_of(double value, DType dtype) {
  const auto narrow = static_cast<float>(value);
  switch (dtype) {
    case DType::f64:
      return std::bit_cast<std::uint64_t>(value);
    case DType::f32:
      return std::bit_cast<std::uint32_t>(narrow);
    case DType::bf16:
      return bf16(narrow).bits;
    case DType::f16:
      throw InvalidArgument("on CUDA no constants are made in f16: use f32 or bf16");
    default:
      return static_cast<std::uint64_t>(static_cast<std::int64_t>(value));
  }
}

}  // namespace

void fill_zeros(StreamRef stream, void* to, std::int64_t bytes) {
  fill(stream, static_cast<std::uint8_t*>(to), bytes, std::uint8_t{0});
}

void copy(const KernelArguments& a) { copy_between(a.context.stream, a.inputs[0], a.outputs[0]); }

void pad(const KernelArguments& a) {
  const TensorView &x = a.inputs[0], &y = a.outputs[0];
  const auto axis = static_cast<int>(a.attributes.integer("axis"));
  const std::int64_t offset = a.attributes.integer("begin") * y.strides[axis];
  fill_zeros(a.context.stream, y.data, y.bytes());
  copy_between(a.context.stream, x,
               {y.data + offset * size_of(y.dtype), y.dtype, x.shape, y.strides});
}

void constant(const KernelArguments& a) {
  const TensorView& y = a.outputs[0];
  const std::uint64_t bits = bits_of(a.attributes.number("value"), y.dtype);
  with_size(size_of(y.dtype), [&](auto element) {
    using T = decltype(element);
    fill(a.context.stream, y.as<T>(), y.elements(), static_cast<T>(bits));
  });
}

void take_integers(const KernelArguments& a) {
  const TensorView &table = a.inputs[0], &indices = a.inputs[1];
  const std::int64_t bytes = table.shape[1] * size_of(table.dtype);
  if (indices.elements() == 0 || bytes == 0) return;
  launch(grid_of(indices.elements()), dim3(kBlock), 0, a.context.stream, take_rows, table.shape[0],
         bytes, table.as<const std::uint8_t>(), indices.as<const std::int32_t>(),
         a.outputs[0].as<std::uint8_t>());
}

void pack(const KernelArguments& a) {
  const TensorView& out = a.outputs[0];
  const auto& offsets = a.attributes.list("offsets");
  const std::int64_t element = size_of(out.dtype);
  const bool has_base = a.inputs[0].data != nullptr;
  std::int64_t end = 0;
  const auto clear_until = [&](std::int64_t next) {
    if (!has_base) fill_zeros(a.context.stream, out.data + end * element, (next - end) * element);
  };
  for (std::size_t i = 0; i < offsets.size(); ++i) {
    const TensorView& part = a.inputs[i + 1];
    std::byte* target = out.data + offsets[i] * element;
    clear_until(offsets[i]);
    if (part.data != target) copy_flat(a.context.stream, part.data, target, part.bytes());
    end = offsets[i] + part.elements();
  }
  clear_until(out.elements());
}

}  // namespace ashlar::cuda
