// Operands of attention and what the CPU's kernels make of them, for kernels on a device.
#pragma once

#include <memory>
#include <random>
#include <string>
#include <vector>

#include "ashlar/buffer.hpp"
#include "cuda/attention.hpp"
#include "emulated/device_call.hpp"
#include "ops/attention_kernels.hpp"
#include "support/elements.hpp"

namespace ashlar::test {

struct Extents {
  std::int64_t sequences, positions, heads, kv_heads, head_size;
};

/// A tensor of random numbers, on the host.
class Random {
 public:
  Random(DType dtype, const Shape& shape, std::mt19937_64& random)
      : bytes_(static_cast<std::size_t>(shape.elements() * size_of(dtype))),
        view_(bytes_.data(), dtype, shape) {
    std::uniform_real_distribution<double> between(-1, 1);
    for (std::int64_t i = 0; i < shape.elements(); ++i) set_element(view_, i, between(random));
  }
  const TensorView& view() const { return view_; }

 private:
  std::vector<std::byte> bytes_;
  TensorView view_;
};

/// Forward and backward of a row, packed or grouped, by the CPU and by find_attention.
class Pair {
 public:
  Pair(const Extents& e, bool grouped, DType dtype = DType::bf16)
      : e_(e), dtype_(dtype), grouped_(grouped) {
    const std::int64_t width = e.heads * e.head_size, kv_width = e.kv_heads * e.head_size;
    if (grouped) {
      for (const std::int64_t channels : {width, kv_width, kv_width}) add(channels);
      views_.emplace_back();
      attributes_ = {{"heads", e.heads}, {"kv_heads", e.kv_heads}, {"sequences", std::int64_t{0}}};
    } else {
      add(3 * width);
      attributes_ = {{"heads", e.heads}};
    }
    add(width);  // dout
    dout_ = views_.back();
    views_.pop_back();
  }

  std::string op(bool backward) const {
    return std::string(grouped_ ? "grouped_query_attention" : "causal_attention") +
           (backward ? "_backward" : "");
  }

  /// The CPU's bytes of all outputs; forward's are kept for backward, which wants them.
  std::vector<std::byte> expected(bool backward) {
    const AttentionSizes sizes = grouped_ ? grouped_sizes(views_[0].shape, attributes_)
                                          : packed_sizes(views_[0].shape, attributes_);
    const std::int64_t scratch = backward ? kernels::attention_backward_workspace(sizes, dtype_)
                                          : kernels::attention_workspace(sizes, dtype_);
    Buffer workspace(host_memory(), scratch, Category::workspace);
    std::int64_t total = 0;
    for (const TensorType& type : types(backward))
      total += type.shape.elements() * size_of(type.dtype);
    std::vector<std::byte> bytes(static_cast<std::size_t>(total));
    const std::vector<TensorView> from = inputs(backward), to = views(bytes, types(backward));
    kernel(backward)({.context = {},
                      .attributes = attributes_,
                      .inputs = from,
                      .outputs = to,
                      .workspace = workspace.data()});
    if (!backward) forward_ = bytes;
    return bytes;
  }

  std::vector<TensorType> types(bool backward) const {
    std::vector<TensorType> of;
    if (backward) {
      for (std::size_t i = 0; i < (grouped_ ? 3 : 1); ++i) of.push_back({dtype_, views_[i].shape});
      return of;
    }
    return {{dtype_, {e_.sequences, e_.positions, e_.heads * e_.head_size}},
            {DType::f32, {e_.heads, e_.sequences, e_.positions}}};
  }

  DeviceCall call(const cuda::Kernel& kernel, bool backward) {
    return call_of(kernel, OpDef{}, attributes_, inputs(backward), types(backward));
  }

 private:
  void add(std::int64_t channels) {
    memory_.push_back(
        std::make_unique<Random>(dtype_, Shape{e_.sequences, e_.positions, channels}, random_));
    views_.push_back(memory_.back()->view());
  }
  void (*kernel(bool backward) const)(const KernelArguments&) {
    if (grouped_)
      return backward ? kernels::grouped_attention_backward : kernels::grouped_attention;
    return backward ? kernels::attention_backward : kernels::attention;
  }
  static std::vector<TensorView> views(std::vector<std::byte>& bytes,
                                       const std::vector<TensorType>& types) {
    std::vector<TensorView> all;
    std::byte* at = bytes.data();
    for (const TensorType& type : types) {
      all.emplace_back(at, type.dtype, type.shape);
      at += all.back().bytes();
    }
    return all;
  }
  std::vector<TensorView> inputs(bool backward) {
    std::vector<TensorView> all = views_;
    if (!backward) return all;
    for (const TensorView& view : views(forward_, types(false))) all.push_back(view);
    all.push_back(dout_);
    return all;
  }

  Extents e_;
  DType dtype_;
  bool grouped_;
  std::mt19937_64 random_{17};
  std::vector<std::unique_ptr<Random>> memory_;
  std::vector<TensorView> views_;
  TensorView dout_;
  Attributes attributes_;
  std::vector<std::byte> forward_;
};

}  // namespace ashlar::test
