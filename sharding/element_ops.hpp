// What is done to gradients and parameters element by element: at once in the host's memory, or by
// the kernels of a device in the order of its stream.
#pragma once

#include <array>
#include <span>
#include <vector>

#include "ashlar/communicator.hpp"
#include "ashlar/device.hpp"
#include "ashlar/optimizer.hpp"
#include "ashlar/tensor_view.hpp"

namespace ashlar {

struct DeviceKernel;
struct ShardedOptions;

/// Operands of an update rule for elements of one parameter.
struct UpdateViews {
  TensorView master, parameter, gradient;  // parameter: 16 bits beside a master, else absent
  std::array<TensorView, 4> states;        // as many as the rule has
  bool decay;
};

class ElementOps {
 public:
  /// On the host.
  ElementOps() = default;
  /// Where the options' stream says. @throws CudaError for a stream of CUDA without CUDA.
  explicit ElementOps(const ShardedOptions& options);

  StreamRef stream() const { return stream_; }
  bool on_device() const { return !stream_.is_inline(); }

  void zero(const TensorView& view) const;
  /// sharding/convert.hpp's.
  void convert(const std::byte* source, DType from, const TensorView& to) const;

  /// Optimizer::step on each, together where element types are the same. On a device only.
  /// @param factor f64 on the device, in the place of the scalars' gradient_scale
  void update(const OptimizerConfig& rule, std::span<const UpdateViews> parts,
              const StepScalars& scalars, const TensorView& factor) const;

  /// The sum of squares of a flat, in the bits of detail::sum_of_squares. On a device only.
  /// @param sum f64 there  @param workspace square_workspace(elements of the flat) bytes there
  void square(const TensorView& flat, const TensorView& sum, std::byte* workspace) const;
  std::int64_t square_workspace(std::int64_t elements) const;

  /// A collective's results are there: on the host, or for later work on the stream.
  void await(Work work);
  /// Nothing is under way on the stream. @throws what went wrong with collectives since the last
  /// call, which a stream would wait for in vain.
  void synchronize();
  /// The same for destructors: tells other ranks where an exception unwinds the stack.
  /// @param replicas may be null
  void settle(Communicator& communicator, Communicator* replicas) noexcept;

 private:
  const DeviceKernel& kernel(std::string_view op) const;

  StreamRef stream_;
  const DeviceKernel* (*find_kernel_)(std::string_view op) = nullptr;
  std::vector<Work> joined_;  // by the stream, not yet by the host
};

}  // namespace ashlar
