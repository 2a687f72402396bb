// Tables of device kernels, sorted by the names of their ops.
#pragma once

#include <algorithm>
#include <span>

#include "ashlar/op.hpp"

namespace ashlar::cuda {

/// The kernel of an op; null where the table has none.
inline const DeviceKernel* find_in(std::span<const DeviceKernel> table, std::string_view op) {
  const auto found = std::ranges::lower_bound(table, op, {}, &DeviceKernel::op);
  return found != table.end() && found->op == op ? &*found : nullptr;
}

}  // namespace ashlar::cuda
