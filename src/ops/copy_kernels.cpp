// Kernels that move elements of any type: strided copy, zero padding, fill.
#include "ops/copy_kernels.hpp"

#include <cstring>

#include "ops/parallel.hpp"
#include "ops/strided.hpp"

namespace ashlar::kernels {
namespace {

constexpr std::int64_t kChunk = 1 << 14;

/// Calls f(T{}) with an unsigned integer of `bytes` bytes.
template <class F>
void with_size(std::int64_t bytes, const F& f) {
  if (bytes == 8) return f(std::uint64_t{});
  if (bytes == 4) return f(std::uint32_t{});
  if (bytes == 2) return f(std::uint16_t{});
  f(std::uint8_t{});
}

/// Copies elements [begin, end) of `from`, in row-major order, to `to`, whose axes lie as given by
/// its strides.
template <typename T>
void copy_elements(const TensorView& from, const TensorView& to, std::int64_t begin,
                   std::int64_t end) {
  const auto loops = merge_axes<2>(from.shape, {from.strides, to.strides});
  const auto steps = loops.inner_strides();
  for_each_run(loops, begin, end, [&](std::int64_t, std::int64_t count, const auto& offsets) {
    const T* in = from.as<T>() + offsets[0];
    T* out = to.as<T>() + offsets[1];
    if (steps[0] == 1 && steps[1] == 1) {
      std::memcpy(out, in, static_cast<std::size_t>(count) * sizeof(T));
    } else {
      for (std::int64_t i = 0; i < count; ++i) out[i * steps[1]] = in[i * steps[0]];
    }
  });
}

void copy_between(const RunContext& context, const TensorView& from, const TensorView& to) {
  with_size(size_of(from.dtype), [&](auto element) {
    for_each_chunk(context, from.elements(), kChunk, [&](std::int64_t begin, std::int64_t end) {
      copy_elements<decltype(element)>(from, to, begin, end);
    });
  });
}

}  // namespace

void copy(const KernelArguments& arguments) {
  copy_between(arguments.context, arguments.inputs[0], arguments.outputs[0]);
}

void pad(const KernelArguments& arguments) {
  const TensorView& x = arguments.inputs[0];
  const TensorView& y = arguments.outputs[0];
  const auto axis = static_cast<int>(arguments.attributes.integer("axis"));
  const std::int64_t offset = arguments.attributes.integer("begin") * y.strides[axis];
  for_each_chunk(arguments.context, y.bytes(), kChunk * 8,
                 [&](std::int64_t begin, std::int64_t end) {
                   std::memset(y.data + begin, 0, static_cast<std::size_t>(end - begin));
                 });
  const TensorView window(y.data + offset * size_of(y.dtype), y.dtype, x.shape, y.strides);
  copy_between(arguments.context, x, window);
}

void constant(const KernelArguments& arguments) {
  const TensorView& y = arguments.outputs[0];
  const double value = arguments.attributes.number("value");
  const auto fill = [&](auto element) {
    for_each_chunk(
        arguments.context, y.elements(), kChunk, [&](std::int64_t begin, std::int64_t end) {
          std::fill(y.as<decltype(element)>() + begin, y.as<decltype(element)>() + end, element);
        });
  };
  switch (y.dtype) {
    case DType::f64:
      return fill(value);
    case DType::f32:
      return fill(static_cast<float>(value));
    case DType::bf16:
      return fill(bf16(static_cast<float>(value)));
    case DType::f16:
      return fill(f16(static_cast<float>(value)));
    case DType::i64:
      return fill(static_cast<std::int64_t>(value));
    case DType::i32:
      return fill(static_cast<std::int32_t>(value));
    case DType::u8:
      return fill(static_cast<std::uint8_t>(value));
  }
}

}  // namespace ashlar::kernels
