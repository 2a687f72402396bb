// A ParameterList as the sharded optimizer's parts see it: parameters with their units, and where
// the caller's memory lies.
#pragma once

#include <string>
#include <vector>

#include "ashlar/sharded_optimizer.hpp"
#include "sharding/element_ops.hpp"
#include "sharding/shard_pass.hpp"

namespace ashlar {

struct Registered {
  std::vector<Parameter> parameters;
  std::vector<std::string> units;
  std::vector<TensorView> values;     // by parameter; the caller's, or without memory
  std::vector<TensorView> gradients;  // by parameter; the caller's, or without memory
  bool owned = false;                 // by the optimizer: there is no memory of the caller

  /// What gradients of a flat are kept in: the first one's type; others are converted.
  DType gradient_dtype(const Flat& flat) const {
    const TensorView& first = gradients[static_cast<std::size_t>(flat.entries.front().parameter)];
    return first.data == nullptr ? flat.dtype : first.dtype;
  }
  /// Whether the caller has memory for each gradient of the flat.
  bool keeps_gradients(const Flat& flat) const;
};

/// Gives every parameter a unit: its own, or one that is named after the first parameter of a run
/// of about 4 MiB. @throws InvalidArgument for an empty or a mixed list.
Registered resolve_units(const ParameterList& list);

/// Between a part of a flat and the caller's memory by parameter, converted where the types differ.
/// Gaps and padding are left alone.
/// @param part the flat's elements from `begin` on
void copy_in(const Flat& layout, const std::vector<TensorView>& from, std::int64_t begin,
             const TensorView& part, const ElementOps& ops = {});
void copy_out(const Flat& layout, const TensorView& part, std::int64_t begin,
              const std::vector<TensorView>& to, const ElementOps& ops = {});
/// Zeroes what no parameter covers.
void clear_gaps(const Flat& layout, const TensorView& flat, const ElementOps& ops);

}  // namespace ashlar
