#include "sharding/host_side.hpp"

#include "ashlar/device_memory.hpp"

namespace ashlar {

HostCopy::HostCopy(const TensorView& device, const ElementOps& ops)
    : device_(device), memory_(host_memory(), device.bytes(), Category::parameter) {
  copy_async(memory_.data(), device.data, device.bytes(), ops.stream());
}

void HostCopy::store(const ElementOps& ops) const {
  copy_async(device_.data, memory_.data(), device_.bytes(), ops.stream());
}

HostSide::HostSide(const Registered& registered, const StateViews& states, const ElementOps& ops,
                   const Flat* part)
    : registered_(registered), states_(states), ops_(ops) {
  if (!on_device()) return;
  const auto copy = [&](const TensorView& view) { return copies_.emplace_back(view, ops).view(); };
  for (const auto& [name, view] : states)
    if (part == nullptr || name.starts_with(state_name(*part, "")))
      views_.emplace(name, copy(view));
  copy_ = registered;
  for (TensorView& values : copy_.values)
    if (part == nullptr && values.data != nullptr) values = copy(values);
  ops.stream().synchronize();
}

void HostSide::store() const {
  if (!on_device()) return;
  for (const HostCopy& copy : copies_) copy.store(ops_);
  ops_.stream().synchronize();
}

}  // namespace ashlar
