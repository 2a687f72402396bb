// How parameters become flats, and flats become shards: the layout that both front doors, the
// checkpoints and the reports share.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "ashlar/dtype.hpp"
#include "ashlar/shape.hpp"
#include "ashlar/tensor_view.hpp"

namespace ashlar {

/// How a parameter's first values are drawn. They depend on the seed and the parameter's name only.
struct Initializer {
  enum class Kind : std::uint8_t { constant, normal };
  Kind kind = Kind::constant;
  double value = 0;  // constant: the value; normal: the standard deviation (mean 0)
};

/// One parameter of a model.
struct Parameter {
  std::string name;
  Shape shape;
  DType dtype = DType::f32;
  int unit = 0;           // index into the model's units
  bool trainable = true;  // frozen parameters have no gradient and no optimizer state
  bool decay = true;      // weight decay applies
  Initializer initializer = {};
};

/// Supplies f32 values [first, first + values.elements()) of a parameter.
using ParameterSource =
    std::function<void(const Parameter& parameter, std::int64_t first, TensorView values)>;

/// Flats start parameters at multiples of this many elements, and shards are multiples of it.
inline constexpr std::int64_t kFlatAlignment = 32;

/// The parameters of one (unit, dtype, trainable), end to end, padded to world size x
/// kFlatAlignment elements.
struct Flat {
  struct Entry {
    int parameter = 0;       // index into FlatLayout::parameters()
    std::int64_t begin = 0;  // first element in the flat
    std::int64_t end = 0;    // one past the last
  };
  std::string name;  // the unit's, with "/frozen" or "/<dtype>" when a unit has several flats
  int unit = 0;
  DType dtype = DType::f32;
  bool trainable = true;
  std::vector<Entry> entries;
  std::int64_t elements = 0;  // sum of the entries' sizes, without any padding
  std::int64_t padded = 0;    // world size x shard
  std::int64_t shard = 0;  // elements that each rank owns: rank r has [r x shard, (r + 1) x shard)
};

/// Offsets of every parameter for a number of ranks. A pure function of (parameters, units, ranks).
class FlatLayout {
 public:
  /// @throws InvalidArgument for no rank, and naming a parameter that is declared twice, has a
  /// negative extent, or a unit that is not there.
  FlatLayout(std::vector<Parameter> parameters, std::vector<std::string> units, int ranks);

  int ranks() const { return ranks_; }
  std::span<const Parameter> parameters() const { return parameters_; }
  std::span<const std::string> units() const { return units_; }
  std::span<const Flat> flats() const { return flats_; }
  /// Index of the flat that holds a parameter, and its entry there.
  int flat_of(int parameter) const { return flat_of_[static_cast<std::size_t>(parameter)]; }
  const Flat::Entry& entry_of(int parameter) const;
  /// Sum over trainable or all flats, without and with padding, in elements.
  std::int64_t elements(bool trainable_only = false) const;
  std::int64_t padded(bool trainable_only = false) const;

 private:
  std::vector<Parameter> parameters_;
  std::vector<std::string> units_;
  std::vector<Flat> flats_;
  std::vector<int> flat_of_;
  int ranks_;
};

/// One rank's part of a flat, as it lies in memory: role "parameter", "master", or a state of the
/// optimizer.
struct ShardView {
  int flat = 0;
  std::string role;
  TensorView values;  // [shard]
};

/// What is sharded and how it travels.
struct ZeroConfig {
  int stage = 3;  // 0: nothing, 1: optimizer state, 2: + gradients, 3: + parameters
  std::int64_t bucket_bytes =
      25 << 20;         // gradients are reduced in runs of whole units of about this size
  int prefetch = 1;     // units gathered ahead of use at stage 3; 0 gathers on demand
  bool overlap = true;  // reductions and prefetched gathers run beside compute
  bool reshard_after_forward =
      true;  // stage 3: drop gathered parameters between forward and backward
  /// Consecutive ranks that share one copy of the model state; the other groups hold copies of it
  /// (docs/zero.md). Divides the number of ranks; 0: all of them share one.
  int group = 0;
};

/// Which types hold what. Masters and optimizer states are f32.
struct PrecisionPolicy {
  DType parameter = DType::f32;  // parameters, activations and gradients
  DType reduce = DType::f32;     // the wire type of gradients
};

}  // namespace ashlar
