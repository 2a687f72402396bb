// A step's states as the host reads and writes them between runs: in place, or, where a device has
// them, in a copy that is made and stored back in the order of its stream.
#pragma once

#include <array>

#include "ashlar/buffer.hpp"
#include "graph/host_staging.hpp"
#include "sharding/flat_values.hpp"

namespace ashlar {

class StateImage {
 public:
  /// @param states, bases outlive this. @param target as the executor's
  StateImage(const StateLayout& states, const PerSpace<std::byte*>& bases,
             const ExecutionTarget& target);

  /// By name, as they were when this was made; they live as long as this.
  StateViews views() const;
  /// What was written to the views is what the next run finds.
  void store() const;

 private:
  static constexpr std::array<Space, 2> kStateSpaces{Space::state, Space::state_window};

  std::byte* base(Space space) const;

  const StateLayout& states_;
  const PerSpace<std::byte*>& bases_;
  StreamRef stream_;
  PerSpace<Buffer> copies_;  // with a stream
};

}  // namespace ashlar
