#include "emulated/device_call.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <list>

#include "support/elements.hpp"

namespace ashlar::test {
namespace {

/// Device memory of a tensor.
class Operand {
 public:
  Operand(DType dtype, const Shape& shape, const Shape& strides, bool misaligned)
      : shift_(misaligned ? static_cast<std::size_t>(size_of(dtype)) : 0),
        bytes_(span_of(dtype, shape, strides)),
        memory_(backend::allocate(bytes_ + shift_)),
        view_(memory_.get() + shift_, dtype, shape, strides) {}
  Operand(const TensorView& from, bool misaligned)
      : Operand(from.dtype, from.shape, from.strides, misaligned) {
    backend::copy(view_.data, from.data, bytes_);
  }
  const TensorView& view() const { return view_; }

 private:
  static std::size_t span_of(DType dtype, const Shape& shape, const Shape& strides) {
    if (shape.elements() == 0) return 0;
    std::int64_t last = 0;
    for (int axis = 0; axis < shape.rank(); ++axis) last += (shape[axis] - 1) * strides[axis];
    return static_cast<std::size_t>((last + 1) * size_of(dtype));
  }

  std::size_t shift_, bytes_;
  std::shared_ptr<std::byte> memory_;
  TensorView view_;
};

constexpr double kRounding = 1e-6;

}  // namespace

std::vector<std::byte> run_once(const DeviceCall& call) {
  std::list<Operand> memory;
  std::vector<TensorView> inputs, outputs;
  for (const TensorView& view : call.inputs) {
    inputs.push_back(view);
    if (view.data != nullptr) inputs.back() = memory.emplace_back(view, call.misaligned).view();
  }
  for (std::size_t i = 0; i < call.outputs.size(); ++i) {
    const TensorType& type = call.outputs[i];
    const TensorView* over = nullptr;
    for (const auto& [output, input] : call.shared)
      if (static_cast<std::size_t>(output) == i) over = &inputs[static_cast<std::size_t>(input)];
    outputs.push_back(over != nullptr
                          ? TensorView(over->data, type.dtype, type.shape)
                          : memory
                                .emplace_back(type.dtype, type.shape,
                                              contiguous_strides(type.shape), call.misaligned)
                                .view());
  }
  const auto workspace = backend::allocate(static_cast<std::size_t>(call.workspace));
  RunContext context = call.context;
  context.stream = backend::stream();
  std::shared_ptr<std::byte> scalars;
  if (context.on_device != nullptr) {
    scalars = backend::allocate(sizeof(RunScalars));
    backend::copy(scalars.get(), context.on_device, sizeof(RunScalars));
    context.on_device = reinterpret_cast<const RunScalars*>(scalars.get());
  }
  call.run({context, call.attributes, inputs, outputs, workspace.get(), nullptr});
  std::vector<std::byte> bytes;
  for (const TensorView& y : outputs) {
    const std::size_t at = bytes.size();
    bytes.resize(at + static_cast<std::size_t>(y.bytes()));
    backend::copy(bytes.data() + at, y.data, bytes.size() - at);
  }
  return bytes;
}

std::vector<std::byte> run_on_device(const DeviceCall& call) {
  return backend::repeat([&] { return run_once(call); });
}

DeviceCall call_of(const cuda::Kernel& kernel, const OpDef& op, const Attributes& attributes,
                   std::vector<TensorView> inputs, std::vector<TensorType> outputs) {
  std::vector<TensorType> types;
  for (const TensorView& view : inputs)
    types.push_back(view.data == nullptr ? TensorType() : TensorType{view.dtype, view.shape});
  const OpShapes shapes{types, outputs, attributes};
  DeviceCall call{.run = kernel.run, .attributes = attributes};
  if (kernel.workspace != nullptr) {
    call.workspace = kernel.workspace(shapes);
  } else if (op.workspace != nullptr) {
    call.workspace = op.workspace(shapes, {});
  }
  call.inputs = std::move(inputs);
  call.outputs = std::move(outputs);
  return call;
}

double relative_error(const std::byte* a, const std::byte* b, std::int64_t n, DType dtype) {
  // Outputs stand end to end, whatever their types: these copies are aligned.
  std::vector<std::byte> own_a(a, a + n * size_of(dtype)), own_b(b, b + n * size_of(dtype));
  const TensorView left(own_a.data(), dtype, {n}), right(own_b.data(), dtype, {n});
  double difference = 0, norm = 0, largest_left = 0, largest_right = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    const double x = element(left, i), y = element(right, i);
    if (std::isnan(x) && std::isnan(y)) continue;
    largest_left = std::max(largest_left, std::abs(x));
    largest_right = std::max(largest_right, std::abs(y));
    if (x == y) {
      norm += std::isfinite(y) ? y * y : 0;
      continue;
    }
    difference += (x - y) * (x - y);
    norm += y * y;
  }
  if (!std::isfinite(difference)) return std::numeric_limits<double>::infinity();
  const bool zero = std::min(largest_left, largest_right) == 0 &&
                    std::max(largest_left, largest_right) < kRounding;
  return difference == 0 || zero ? 0 : std::sqrt(difference / norm);
}

}  // namespace ashlar::test
