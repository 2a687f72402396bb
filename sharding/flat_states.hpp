// The states of every flat as inputs of a graph under construction.
#pragma once

#include <map>
#include <string>

#include "ashlar/op.hpp"
#include "sharding/shard_pass.hpp"

namespace ashlar {

/// Declares states at first use. Whole or this rank's shard of the flat, as the stage asks.
class FlatStates {
 public:
  FlatStates(Tracer& tracer, const FlatLayout& layout, const ShardOptions& options)
      : tracer_(tracer), layout_(layout), options_(options) {}

  const Flat& flat(int f) const { return layout_.flats()[static_cast<std::size_t>(f)]; }
  /// [padded] at stages 0 to 2, [shard] at stage 3.
  Value parameter(int f) {
    return get(f, "parameter", flat(f).dtype, options_.zero.stage == 3, Category::parameter);
  }
  /// [padded] where whole gradients are kept, else [shard].
  Value gradient(int f) {
    return get(f, "gradient", gradient_dtype(options_), !keeps_whole_gradients(options_),
               Category::gradient);
  }
  /// f32 master or moment: [padded] at stage 0, else [shard].
  Value optimizer(int f, std::string_view role) {
    return get(f, role, DType::f32, options_.zero.stage > 0, Category::optimizer_state);
  }

 private:
  Value get(int f, std::string_view role, DType dtype, bool sharded, Category category) {
    Value& value = values_[state_name(flat(f), role)];
    if (!value)
      value = tracer_.state(state_name(flat(f), role), dtype,
                            {sharded ? flat(f).shard : flat(f).padded}, category);
    return value;
  }

  Tracer& tracer_;
  const FlatLayout& layout_;
  const ShardOptions& options_;
  std::map<std::string, Value> values_;
};

}  // namespace ashlar
