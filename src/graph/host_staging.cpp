#include "graph/host_staging.hpp"

#include <new>

#include "ashlar/device_memory.hpp"

namespace ashlar {

HostStaging::HostStaging(const Program& program,
                         const std::function<TensorView(const Operand&)>& bind,
                         const ExecutionTarget& target)
    : target_(target),
      batches_(2 * static_cast<std::size_t>(program.micro_batches)),
      scalars_(*target.staging, sizeof(RunScalars), Category::input),
      scalars_on_device_(bind(program.scalars).data) {
  const auto pair = [&](const Operand& operand) {
    Pair result{{*target.staging, extent_bytes(operand), Category::input}, {}, bind(operand)};
    result.host = result.device;
    result.host.data = result.memory.data();
    return result;
  };
  for (std::size_t slot = 0; slot < batches_.size(); ++slot)
    for (const auto& [name, operands] : program.inputs)
      batches_[slot].inputs.emplace(name, pair(operands[slot % operands.size()]));
  for (const auto& [name, operand] : program.outputs) outputs_.emplace(name, pair(operand));
}

TensorView HostStaging::input(const std::string& name, int slot) const {
  return batches_.at(static_cast<std::size_t>(slot)).inputs.at(name).host;
}

TensorView HostStaging::output(const std::string& name) const { return outputs_.at(name).host; }

const RunScalars* HostStaging::send(const RunScalars& scalars) {
  new (scalars_.data()) RunScalars(scalars);
  copy_async(scalars_on_device_, scalars_.data(), scalars_.bytes(), target_.stream);
  return reinterpret_cast<const RunScalars*>(scalars_on_device_);
}

void HostStaging::reclaim(int slot) { batches_[static_cast<std::size_t>(slot)].sent.wait(); }

void HostStaging::send(int slot) {
  Batch& batch = batches_[static_cast<std::size_t>(slot)];
  for (const auto& [name, input] : batch.inputs)
    copy_async(input.device.data, input.host.data, input.memory.bytes(), target_.stream);
  batch.sent = target_.stream.record();
}

void HostStaging::fetch() {
  for (const auto& [name, output] : outputs_)
    copy_async(output.host.data, output.device.data, output.memory.bytes(), target_.stream);
}

}  // namespace ashlar
