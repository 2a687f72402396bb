// States and the caller's parameters as the host reads and writes them between steps: in place, or
// in copies of what a device has.
#pragma once

#include <vector>

#include "ashlar/buffer.hpp"
#include "sharding/element_ops.hpp"
#include "sharding/flat_values.hpp"
#include "sharding/registered.hpp"

namespace ashlar {

/// A view's bytes, which are on the host once the stream has passed.
class HostCopy {
 public:
  HostCopy(const TensorView& device, const ElementOps& ops);
  TensorView view() const { return memory_.view(device_.dtype, device_.shape); }
  /// Back to where they come from, in the order of the stream.
  void store(const ElementOps& ops) const;

 private:
  TensorView device_;
  Buffer memory_;
};

class HostSide {
 public:
  /// Waits for the device. All outlive this. @param part copy the states of this flat alone
  HostSide(const Registered& registered, const StateViews& states, const ElementOps& ops,
           const Flat* part = nullptr);

  /// The values alone are the host's.
  const Registered& registered() const { return on_device() ? copy_ : registered_; }
  const StateViews& views() const { return on_device() ? views_ : states_; }
  /// What was written is what the device finds. Waits for it.
  void store() const;

 private:
  bool on_device() const { return ops_.on_device(); }

  const Registered& registered_;
  const StateViews& states_;
  const ElementOps& ops_;
  Registered copy_;
  StateViews views_;
  std::vector<HostCopy> copies_;
};

}  // namespace ashlar
