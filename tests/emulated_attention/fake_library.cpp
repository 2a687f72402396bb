#include "emulated_attention/fake_library.hpp"

#include <array>
#include <cstdint>
#include <cstring>

#include "ashlar/error.hpp"
#include "ops/attention_kernels.hpp"

namespace ashlar::test {
namespace {

using cuda::AttentionOperands;
using cuda::AttentionProblem;

/// (sequences, positions, channels) without gaps.
class Dense {
 public:
  Dense(const AttentionProblem& p, std::int64_t heads)
      : row_bytes_(heads * p.head_size * size_of(DType::bf16)),
        rows_(p.sequences * p.positions),
        bytes_(static_cast<std::size_t>(rows_ * row_bytes_)),
        shape_{p.sequences, p.positions, heads * p.head_size} {}
  Dense& read(const std::byte* from, std::int64_t stride) {
    for (std::int64_t row = 0; row < rows_; ++row)
      std::memcpy(at(row), from + row * stride * size_of(DType::bf16), size());
    return *this;
  }
  void write(std::byte* to, std::int64_t stride) {
    for (std::int64_t row = 0; row < rows_; ++row)
      std::memcpy(to + row * stride * size_of(DType::bf16), at(row), size());
  }
  TensorView view() { return TensorView(bytes_.data(), DType::bf16, shape_); }

 private:
  std::byte* at(std::int64_t row) { return bytes_.data() + row * row_bytes_; }
  std::size_t size() const { return static_cast<std::size_t>(row_bytes_); }

  std::int64_t row_bytes_, rows_;
  std::vector<std::byte> bytes_;
  Shape shape_;
};

/// Row sums as the CPU has them.
class Sums {
 public:
  explicit Sums(const AttentionProblem& p)
      : p_(p), values_(static_cast<std::size_t>(p.sequences * p.heads * p.positions)) {}
  Sums& read(const std::byte* from) {
    each([&](float& value, std::int64_t at) {
      std::memcpy(&value, from + at * size_of(DType::f32), sizeof value);
    });
    return *this;
  }
  void write(std::byte* to) {
    each([&](float& value, std::int64_t at) {
      std::memcpy(to + at * size_of(DType::f32), &value, sizeof value);
    });
  }
  TensorView view() {
    return TensorView(values_.data(), DType::f32, Shape{p_.heads, p_.sequences, p_.positions});
  }

 private:
  template <class Body>
  void each(const Body& body) {
    std::size_t i = 0;
    for (std::int64_t head = 0; head < p_.heads; ++head)
      for (std::int64_t sequence = 0; sequence < p_.sequences; ++sequence)
        for (std::int64_t t = 0; t < p_.positions; ++t)
          body(values_[i++], sequence * p_.lse_of_sequence() + head * p_.lse_of_head() + t);
  }
  const AttentionProblem& p_;
  std::vector<float> values_;
};

class Fake : public cuda::AttentionLibrary {
 public:
  bool serves(const AttentionProblem& p) override {
    return !p.backward || fake_attention().has_backward;
  }
  std::string plan(const AttentionProblem& p) override {
    return fake_attention().plan + (p.backward ? " backward" : "");
  }
  void run(const AttentionProblem& p, const AttentionOperands& o, std::byte* workspace,
           StreamRef) override {
    fake_attention().calls.push_back(p);
    if (reinterpret_cast<std::uintptr_t>(workspace) % 256 != 0)
      throw Error("the workspace begins at no multiple of 256");
    std::memset(workspace, 0xff, static_cast<std::size_t>(cuda::library_bytes(p)));
    const AttentionSizes sizes{.rows = p.sequences * p.positions,
                               .sequences = p.sequences,
                               .positions = p.positions,
                               .heads = p.heads,
                               .kv_heads = p.kv_heads,
                               .head_size = p.head_size};
    Dense q(p, p.heads), k(p, p.kv_heads), v = k, out = q;
    q.read(o.query, p.query_stride);
    k.read(o.key, p.key_stride);
    v.read(o.value, p.key_stride);
    Sums lse(p);
    if (!p.backward) {
      std::array inputs = {q.view(), k.view(), v.view(), TensorView()};
      std::array outputs = {out.view(), lse.view()};
      call(kernels::grouped_attention, kernels::attention_workspace(sizes, DType::bf16), p, inputs,
           outputs);
      out.write(o.out, p.out_stride);
      lse.write(o.lse);
      return;
    }
    Dense dout = q, dq = q, dk = k, dv = k;
    out.read(o.out, p.out_stride);
    dout.read(o.dout, p.out_stride);
    lse.read(o.lse);
    std::array inputs = {q.view(),   k.view(),   v.view(),   TensorView(),
                         out.view(), lse.view(), dout.view()};
    std::array outputs = {dq.view(), dk.view(), dv.view()};
    call(kernels::grouped_attention_backward,
         kernels::attention_backward_workspace(sizes, DType::bf16), p, inputs, outputs);
    dq.write(o.dquery, p.query_stride);
    dk.write(o.dkey, p.key_stride);
    dv.write(o.dvalue, p.key_stride);
  }

 private:
  static void call(void (*kernel)(const KernelArguments&), std::int64_t scratch,
                   const AttentionProblem& p, std::span<const TensorView> inputs,
                   std::span<const TensorView> outputs) {
    const Attributes attributes{
        {"heads", p.heads}, {"kv_heads", p.kv_heads}, {"sequences", std::int64_t{0}}};
    std::vector<std::byte> memory(static_cast<std::size_t>(scratch) + 64);
    const auto address = reinterpret_cast<std::uintptr_t>(memory.data());
    kernel({.context = {},
            .attributes = attributes,
            .inputs = inputs,
            .outputs = outputs,
            .workspace = memory.data() + (64 - address % 64) % 64});
  }
};

}  // namespace

FakeAttention& fake_attention() {
  thread_local FakeAttention fake;
  return fake;
}

}  // namespace ashlar::test

namespace ashlar::cuda {

AttentionLibrary* attention_library(StreamRef) {
  static test::Fake library;
  return test::fake_attention().installed ? &library : nullptr;
}

std::string attention_plans(Device) { return {}; }

}  // namespace ashlar::cuda
