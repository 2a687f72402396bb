// The update rule on this rank's part of every flat: from summed gradients to new parameters.
#pragma once

#include <array>
#include <vector>

#include "runtime/thread_pool.hpp"
#include "sharding/gradient_reducer.hpp"

namespace ashlar {

class ShardUpdate {
 public:
  /// @param states as ShardedStates made them
  ShardUpdate(const FlatLayout& layout, const Registered& registered, int stage,
              const StateViews& states, const Optimizer& rule, int rank);

  /// Rounds nothing: masters become what the caller's parameters are.
  void fill_masters() const;
  /// @param gradients reduced
  void step(const GradientReducer& gradients, const StepScalars& scalars, ThreadPool& pool) const;
  /// The same by a device's kernels, which return once they are enqueued.
  /// @param factor f64 there, in the place of the scalars' gradient_scale
  void step(const GradientReducer& gradients, const StepScalars& scalars, const ElementOps& ops,
            const OptimizerConfig& config, const TensorView& factor) const;

 private:
  /// What this rank updates of a flat: elements [first, last). Views begin at `first`.
  struct Part {
    int flat;
    std::int64_t first, last;
    TensorView master;     // none for f32
    TensorView parameter;  // none where the caller has it
    std::array<TensorView, 4> states;
  };

  const Flat& flat(const Part& part) const {
    return layout_.flats()[static_cast<std::size_t>(part.flat)];
  }
  UpdateViews operands(const Part& part, const Flat::Entry& entry, std::int64_t begin,
                       std::int64_t end, const GradientReducer& gradients) const;

  const FlatLayout& layout_;
  const Registered& registered_;
  const Optimizer& rule_;
  std::vector<Part> parts_;  // of trainable flats
};

}  // namespace ashlar
