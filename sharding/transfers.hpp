// The views of one collective, as rows of collectives hand them over.
#pragma once

#include <array>

#include "ashlar/communicator.hpp"
#include "sharding/collective_ops.hpp"

namespace ashlar {

/// Pairs the views of a collective without allocating.
class Transfers {
 public:
  void add(TensorView send, TensorView recv) { transfers_[count_++] = {send, recv}; }
  std::span<const Transfer> span() const { return {transfers_.data(), count_}; }

 private:
  std::array<Transfer, kMostFlats> transfers_;
  std::size_t count_ = 0;
};

inline TensorView as_flat(const TensorView& view) {
  return {view.data, view.dtype, {view.elements()}};
}

}  // namespace ashlar
