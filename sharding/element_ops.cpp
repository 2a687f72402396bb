#include "sharding/element_ops.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <exception>
#include <iterator>
#include <map>
#include <utility>
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

void ElementOps::update(const OptimizerConfig& rule, std::span<const UpdateViews> parts,
                        const StepScalars& scalars, const TensorView& factor) const {
  std::map<std::pair<DType, DType>, std::vector<UpdateViews>> alike;
  for (const UpdateViews& part : parts) {
    const bool narrow = part.parameter.data != nullptr;
    alike[{part.gradient.dtype, narrow ? part.parameter.dtype : DType::f32}].push_back(part);
  }
  RunContext context;
  context.stream = stream_;
  context.step = scalars.step;
  context.learning_rate = scalars.learning_rate;
  for (const auto& [types, flats] : alike) {
    std::vector<TensorView> inputs, outputs;
    std::vector<std::int64_t> segments;
    std::int64_t begin = 0;
    for (const UpdateViews& flat : flats) {
      inputs.push_back(flat.gradient);
      outputs.push_back(flat.master);
      std::copy_n(flat.states.begin(), states_of(rule).size(), std::back_inserter(outputs));
      if (types.second != DType::f32) outputs.push_back(flat.parameter);
      const std::int64_t end = begin + flat.gradient.elements();
      segments.insert(segments.end(), {begin, end, flat.decay ? 1 : 0});
      begin = end;
    }
    inputs.push_back(factor);
    inputs.insert(inputs.end(), outputs.begin(), outputs.end());
    const Attributes attributes = update_attributes(rule, flats.size(), std::move(segments), false);
    kernel("update").run({context, attributes, inputs, outputs});
  }
}

// What is rounded into itself, as it is.
void ElementOps::square(const TensorView& flat, const TensorView& sum, std::byte* workspace) const {
  RunContext context;
  context.stream = stream_;
  const std::array outputs{flat, sum};
  kernel("round_sums")
      .run({.context = context,
            .attributes = {{"round_bf16", std::int64_t{0}}},
            .inputs = {&flat, 1},
            .outputs = outputs,
            .workspace = workspace});
}

std::int64_t ElementOps::square_workspace(std::int64_t elements) const {
  const std::array<TensorType, 2> outputs{{{DType::f32, {elements}}, {DType::f64, {1}}}};
  return kernel("round_sums").workspace({outputs, outputs, {}});
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

void ElementOps::settle(Communicator& communicator, Communicator* replicas) noexcept {
  detail::settle_all({&communicator, replicas}, joined_, [](Work& work) -> Work& { return work; });
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
