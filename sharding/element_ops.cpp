#include "sharding/element_ops.hpp"

#include <fmt/format.h>

#include <cstring>
#include <exception>
#include <vector>

#include "ashlar/device_memory.hpp"
#include "ashlar/error.hpp"
#include "ashlar/op.hpp"
#include "ashlar/sharded_optimizer.hpp"
#include "comm/settle.hpp"
#include "ops/cuda_backend.hpp"
#include "sharding/collective_ops.hpp"
#include "sharding/convert.hpp"

namespace ashlar {

ElementOps::ElementOps(const ShardedOptions& options)
    : stream_(options.stream), find_kernel_(options.find_kernel) {
  if (on_device() && find_kernel_ == nullptr) find_kernel_ = cuda_backend(1, 0).find_kernel;
}

void ElementOps::zero(const TensorView& view) const {
  if (on_device()) return fill_async(view.data, 0, view.bytes(), stream_);
  std::memset(view.data, 0, static_cast<std::size_t>(view.bytes()));
}

void ElementOps::convert(const std::byte* source, DType from, const TensorView& to) const {
  if (!on_device()) return ashlar::convert(source, from, to);
  if (to.elements() == 0) return;
  if (from == to.dtype) return copy_async(to.data, source, to.bytes(), stream_);
  RunContext context;
  context.stream = stream_;
  const TensorView input(const_cast<std::byte*>(source), from, {to.elements()});
  kernel("cast").run({context, {}, {&input, 1}, {&to, 1}});
}

void ElementOps::update(const OptimizerConfig& rule, const TensorView& master,
                        const TensorView& parameter, const TensorView& gradient,
                        std::span<const TensorView> states, bool decay, const StepScalars& scalars,
                        const TensorView& factor) const {
  RunContext context;
  context.stream = stream_;
  context.step = scalars.step;
  context.learning_rate = scalars.learning_rate;
  Attributes attributes = attributes_of(rule);
  attributes.set("segments", std::vector<std::int64_t>{0, gradient.elements(), decay ? 1 : 0});
  attributes.set("sharded", std::int64_t{0});
  const std::vector<TensorView> inputs{gradient, factor};
  std::vector<TensorView> outputs{master};
  outputs.insert(outputs.end(), states.begin(), states.end());
  if (parameter.data != nullptr) outputs.push_back(parameter);
  kernel("update").run({context, attributes, inputs, outputs});
}

void ElementOps::await(Work work) {
  if (!on_device()) return work.wait();
  work.join(stream_);
  joined_.push_back(std::move(work));
}

void ElementOps::synchronize() {
  while (!joined_.empty()) {
    joined_.back().wait();
    joined_.pop_back();
  }
  stream_.synchronize();
}

void ElementOps::settle(Communicator& communicator) noexcept {
  detail::settle_all(communicator, joined_, [](Work& work) -> Work& { return work; });
  joined_.clear();
  try {
    stream_.synchronize();
  } catch (const std::exception&) {  // has been or will be reported elsewhere
  }
}

const DeviceKernel& ElementOps::kernel(std::string_view op) const {
  if (const DeviceKernel* found = find_kernel_(op)) return *found;
  throw InvalidArgument(fmt::format("the device has no kernel '{}'", op));
}

}  // namespace ashlar
