// Somebody's model for the sharded optimizer: parameters of awkward sizes, gradients that are known
// in closed form.
#pragma once

#include <bit>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "ashlar/communicator.hpp"
#include "ashlar/sharded_optimizer.hpp"

namespace ashlar::test {

/// Whose memory the parameters lie in, and how gradients are reported.
enum class Memory : std::uint8_t { callers, gradients_elsewhere, optimizers };

struct ToyParameter {
  std::string name;
  std::int64_t elements;
  std::string unit;
  bool decay = true;
  bool trainable = true;
};

inline const std::vector<ToyParameter>& toy_parameters() {
  static const std::vector<ToyParameter> parameters{
      {"embedding", 1000, "first"}, {"shift", 7, "first", false},
      {"gain", 1, "second", false}, {"nothing", 0, "second"},
      {"middle", 130, "second"},    {"constant", 50, "second", true, false},
      {"head", 33, "third"}};
  return parameters;
}

/// Exact in 16 bits.
inline float first_value(std::size_t parameter, std::int64_t i) {
  return 0.5F -
         0.03125F * static_cast<float>((i * 7 + static_cast<std::int64_t>(parameter) * 3) % 32);
}

/// What one rank's backward gives for an element whose value is `value`.
inline float toy_gradient(float value, std::int64_t i, std::int64_t sample) {
  return (value - 0.125F * static_cast<float>(i % 5)) *
         (1 + 0.25F * static_cast<float>((sample * 31 + i) % 7));
}

/// A model on one rank. Values and gradients are f32 or 16 bits wide, at odd addresses.
class ToyModel {
 public:
  ToyModel(Communicator& world, Memory memory, DType dtype, const OptimizerConfig& rule,
           ShardedOptions options)
      : memory_(memory), dtype_(dtype) {
    const auto& all = toy_parameters();
    storage_.resize(all.size() * 2);
    ParameterList list;
    for (std::size_t p = 0; p < all.size(); ++p) {
      const Shape shape{all[p].elements};
      const ParameterOptions how{
          .unit = all[p].unit, .trainable = all[p].trainable, .decay = all[p].decay};
      if (memory == Memory::optimizers) {
        list.allocate(all[p].name, shape, dtype, how);
        continue;
      }
      const TensorView values = take(2 * p, shape), gradients = take(2 * p + 1, shape);
      for (std::int64_t i = 0; i < shape.elements(); ++i)  // other ranks' are replaced
        put(values, i, first_value(p, i) + static_cast<float>(world.rank()));
      const bool known = memory == Memory::callers && all[p].trainable;
      list.add(all[p].name, values, known ? gradients : TensorView(), how);
      gradients_.push_back(gradients);
    }
    options.source = [](const Parameter& parameter, std::int64_t first, TensorView values) {
      for (std::int64_t i = 0; i < values.elements(); ++i)
        values.as<float>()[i] = first_value(index_of(parameter.name), first + i);
    };
    optimizer_ = std::make_unique<ShardedOptimizer>(list, world, rule, options);
  }

  ShardedOptimizer& optimizer() { return *optimizer_; }

  /// One micro-batch. @param order of reports, by parameter; empty: none. Parameters of `unused`
  /// get no gradient.
  void backward(std::int64_t sample, const std::vector<std::size_t>& order,
                const std::string& unused = "") {
    for (const std::string unit : {"third", "second", "first"}) {
      const auto lease = optimizer_->gather(unit);
      for (const std::size_t p : order) {
        const ToyParameter& parameter = toy_parameters()[p];
        if (parameter.unit != unit || !parameter.trainable || parameter.name == unused) continue;
        accumulate(p, sample);
      }
    }
  }
  void report(std::size_t p) {
    const std::string& name = toy_parameters()[p].name;
    if (memory_ == Memory::gradients_elsewhere)
      optimizer_->grad_ready(name, gradients_[p]);
    else
      optimizer_->grad_ready(name);
  }

  /// What the caller's own memory of gradients is set to before a step.
  void zero_grad() {
    optimizer_->zero_grad();
    if (memory_ != Memory::gradients_elsewhere) return;
    for (const TensorView& view : gradients_)
      std::memset(view.data, 0, static_cast<std::size_t>(view.bytes()));
  }

  /// All parameters as f32, on every rank.
  std::vector<float> parameters(bool average = false) {
    std::vector<float> all;
    for (const ToyParameter& parameter : toy_parameters()) {
      if (average && !parameter.trainable) continue;
      std::vector<float> values(static_cast<std::size_t>(parameter.elements));
      optimizer_->read(parameter.name, {values.data(), DType::f32, {parameter.elements}},
                       {.everywhere = true, .average = average});
      all.insert(all.end(), values.begin(), values.end());
    }
    return all;
  }

  bool reports = true;  // as gradients come; else none is reported

 private:
  static std::size_t index_of(const std::string& name) {
    std::size_t p = 0;
    while (toy_parameters()[p].name != name) ++p;
    return p;
  }

  TensorView take(std::size_t slot, const Shape& shape) {
    storage_[slot].resize(static_cast<std::size_t>(shape.elements() * size_of(dtype_)) + 8);
    return {storage_[slot].data() + size_of(dtype_), dtype_, shape};
  }

  static void put(const TensorView& view, std::int64_t i, float value) {
    if (view.dtype == DType::f32) view.as<float>()[i] = value;
    if (view.dtype == DType::bf16) view.as<bf16>()[i] = bf16(value);
    if (view.dtype == DType::f16) view.as<f16>()[i] = f16(value);
  }
  static float get(const TensorView& view, std::int64_t i) {
    if (view.dtype == DType::f32) return view.as<float>()[i];
    return view.dtype == DType::bf16 ? float(view.as<bf16>()[i]) : float(view.as<f16>()[i]);
  }

  /// Adds the gradient, and reports it.
  void accumulate(std::size_t p, std::int64_t sample) {
    const std::string& name = toy_parameters()[p].name;
    const bool owned = memory_ == Memory::optimizers;
    const TensorView values = optimizer_->values(name);
    const TensorView gradients = owned ? optimizer_->gradient(name) : gradients_[p];
    for (std::int64_t i = 0; i < values.elements(); ++i)
      put(gradients, i, get(gradients, i) + toy_gradient(get(values, i), i, sample));
    if (reports) report(p);
  }

  Memory memory_;
  DType dtype_;
  std::vector<std::vector<std::byte>> storage_;
  std::vector<TensorView> gradients_;
  std::unique_ptr<ShardedOptimizer> optimizer_;
};

inline std::vector<std::uint32_t> bits_of(const std::vector<float>& values) {
  std::vector<std::uint32_t> bits;
  for (const float value : values) bits.push_back(std::bit_cast<std::uint32_t>(value));
  return bits;
}

}  // namespace ashlar::test
