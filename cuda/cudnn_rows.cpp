// Rows of attention: in parts by the library, or on kernels of our own.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>

#include "ashlar/memory_resource.hpp"
#include "cuda/attention.hpp"
#include "cuda/kernel_table.hpp"
#include "cuda/kernels.hpp"
#include "cuda/workspace.hpp"
#include "ops/attention_kernels.hpp"

namespace ashlar::cuda {
namespace {

constexpr std::int64_t kOperandAlignment = 16;  // of operands
constexpr std::int64_t kMostChannels = 128;

/// What tables differ in.
struct Target {
  int sm;
  bool deterministic;
};

/// Which of the four rows.
struct Row {
  bool grouped, backward;
};

/// Nothing where the library does not take operands of such a type and extents.
std::optional<AttentionProblem> problem_of(const Target& target, const Row& row, DType dtype,
                                           const Shape& query, const Attributes& attributes) {
  const AttentionSizes s =
      row.grouped ? grouped_sizes(query, attributes) : packed_sizes(query, attributes);
  const bool boundaries = row.grouped && attributes.integer("sequences") != 0;
  if (dtype != DType::bf16 || boundaries || s.positions < 2 || s.sequences < 1) return {};
  if (s.head_size % 8 != 0 || s.head_size < 8 || s.head_size > kMostChannels) return {};
  const std::int64_t channels = s.channels();
  return AttentionProblem{.sm = target.sm,
                          .backward = row.backward,
                          .deterministic = target.deterministic || !row.backward,
                          .sequences = s.sequences,
                          .positions = s.positions,
                          .heads = s.heads,
                          .kv_heads = s.kv_heads,
                          .head_size = s.head_size,
                          .query_stride = row.grouped ? channels : 3 * channels,
                          .key_stride = row.grouped ? s.kv_heads * s.head_size : 3 * channels,
                          .out_stride = channels};
}

std::byte* channels_on(const TensorView& from, std::int64_t channels) {
  return from.data + channels * size_of(from.dtype);
}

/// In forward a (inputs) is qkv or q, k, v, boundaries; b (outputs) is out, lse. In backward a goes
/// on with out, lse, dout; b is the gradients, packed as the inputs are.
AttentionOperands operands_of(const Row& row, const AttentionProblem& p,
                              std::span<const TensorView> a, std::span<const TensorView> b) {
  const std::int64_t channels = p.heads * p.head_size;
  const auto parts = [&](std::span<const TensorView> views) {
    if (row.grouped) return std::array{views[0].data, views[1].data, views[2].data};
    return std::array{views[0].data, channels_on(views[0], channels),
                      channels_on(views[0], 2 * channels)};
  };
  const auto [query, key, value] = parts(a);
  AttentionOperands o{.query = query, .key = key, .value = value};
  if (!row.backward) {
    o.out = b[0].data;
    o.lse = b[1].data;
    return o;
  }
  const std::span<const TensorView> rest = a.subspan(row.grouped ? 4 : 1);
  const auto [dquery, dkey, dvalue] = parts(b);
  o.out = rest[0].data;
  o.lse = rest[1].data;
  o.dout = rest[2].data;
  o.dquery = dquery;
  o.dkey = dkey;
  o.dvalue = dvalue;
  return o;
}

bool all_aligned(const AttentionOperands& o) {
  return std::ranges::none_of(
      std::array{o.query, o.key, o.value, o.out, o.lse, o.dout, o.dquery, o.dkey, o.dvalue},
      [](const std::byte* pointer) {
        return reinterpret_cast<std::uintptr_t>(pointer) % kOperandAlignment != 0;
      });
}

/// The operands of the part that begins with a sequence and a head of keys.
AttentionOperands part_at(const AttentionProblem& p, const AttentionOperands& whole,
                          std::int64_t sequence, std::int64_t kv_head) {
  const std::int64_t head = kv_head * (p.heads / p.kv_heads), row = sequence * p.positions;
  const auto move = [&](std::byte*& pointer, std::int64_t stride, std::int64_t first_head) {
    if (pointer != nullptr)
      pointer += (row * stride + first_head * p.head_size) * size_of(DType::bf16);
  };
  AttentionOperands part = whole;
  for (std::byte** pointer : {&part.query, &part.dquery}) move(*pointer, p.query_stride, head);
  for (std::byte** pointer : {&part.key, &part.value, &part.dkey, &part.dvalue})
    move(*pointer, p.key_stride, kv_head);
  for (std::byte** pointer : {&part.out, &part.dout}) move(*pointer, p.out_stride, head);
  part.lse += (sequence * p.lse_of_sequence() + head * p.lse_of_head()) * size_of(DType::f32);
  return part;
}

/// lse (heads, sequences, positions) as (sequences, heads, positions).
void order_by_sequence(const RunContext& context, const AttentionProblem& p, std::byte* from,
                       std::byte* to) {
  const Shape shape{p.sequences, p.heads, p.positions};
  const TensorView before(from, DType::f32, shape,
                          Shape{p.positions, p.sequences * p.positions, 1});
  const TensorView after(to, DType::f32, shape);
  copy({.context = context, .attributes = {}, .inputs = {&before, 1}, .outputs = {&after, 1}});
}

std::int64_t lse_bytes(const AttentionProblem& p) {
  return p.backward ? align_up(p.sequences * p.heads * p.positions * size_of(DType::f32),
                               kLibraryAlignment)
                    : 0;
}

/// Bytes of a row's own kernel.
std::int64_t own_workspace(const Row& row, const OpShapes& shapes) {
  return row.backward ? attention_backward_workspace(shapes) : 0;
}

std::int64_t workspace(const Target& target, const Row& row, const OpShapes& shapes) {
  const auto& [dtype, query] = shapes.inputs[0];
  const auto problem = problem_of(target, row, dtype, query, shapes.attributes);
  if (!problem) return own_workspace(row, shapes);
  return std::max(own_workspace(row, shapes),
                  kLibraryAlignment + lse_bytes(*problem) + library_bytes(part_of(*problem)));
}

void run_own(const Row& row, const KernelArguments& a) {
  if (row.grouped) return row.backward ? grouped_attention_backward(a) : grouped_attention(a);
  return row.backward ? attention_backward(a) : attention(a);
}

/// Null where kernels of our own run the parts.
AttentionLibrary* library_of(const AttentionProblem& part, const AttentionOperands& operands,
                             StreamRef stream) {
  if (!all_aligned(operands)) return nullptr;
  AttentionLibrary* const library = attention_library(stream);
  return library != nullptr && library->serves(part) ? library : nullptr;
}

void run(const Target& target, const Row& row, const KernelArguments& a) {
  const TensorView& query = a.inputs[0];
  const auto problem = problem_of(target, row, query.dtype, query.shape, a.attributes);
  if (!problem) return run_own(row, a);
  AttentionOperands operands = operands_of(row, *problem, a.inputs, a.outputs);
  const AttentionProblem part = part_of(*problem);
  AttentionLibrary* const library = library_of(part, operands, a.context.stream);
  if (library == nullptr) return run_own(row, a);
  std::byte* at = aligned_up(a.workspace);
  if (problem->backward) {
    order_by_sequence(a.context, *problem, operands.lse, at);
    operands.lse = at;
    at += lse_bytes(*problem);
  }
  for (std::int64_t s = 0; s < problem->sequences; s += part.sequences)
    for (std::int64_t h = 0; h < problem->kv_heads; h += part.kv_heads)
      library->run(part, part_at(*problem, operands, s, h), at, a.context.stream);
}

std::string choice(const Target& target, const Row& row, const KernelArguments& a) {
  const TensorView& query = a.inputs[0];
  const auto problem = problem_of(target, row, query.dtype, query.shape, a.attributes);
  if (!problem) return {};
  const AttentionProblem part = part_of(*problem);
  AttentionLibrary* const library =
      library_of(part, operands_of(row, *problem, a.inputs, a.outputs), a.context.stream);
  return fmt::format("{}: {}", describe(part),
                     library != nullptr ? library->plan(part) : "kernels of our own");
}

template <Target target, Row row>
constexpr Kernel kernel_of(std::string_view op) {
  return {op, [](const KernelArguments& a) { run(target, row, a); },
          [](const OpShapes& shapes) { return workspace(target, row, shapes); }};
}

template <Target target>
constexpr std::array kTable = std::to_array<Kernel>({
    kernel_of<target, Row{.grouped = false, .backward = false}>("causal_attention"),
    kernel_of<target, Row{.grouped = false, .backward = true}>("causal_attention_backward"),
    kernel_of<target, Row{.grouped = true, .backward = false}>("grouped_query_attention"),
    kernel_of<target, Row{.grouped = true, .backward = true}>("grouped_query_attention_backward"),
});

static_assert(std::ranges::is_sorted(kTable<Target{90, true}>, {}, &Kernel::op));

template <int sm>
const Kernel* find(std::string_view op, bool deterministic) {
  return deterministic ? find_in(kTable<Target{sm, true}>, op)
                       : find_in(kTable<Target{sm, false}>, op);
}

}  // namespace

const Kernel* find_attention(std::string_view op, int sm, bool deterministic) {
  switch (sm) {
    case 80:
      return find<80>(op, deterministic);
    case 90:
      return find<90>(op, deterministic);
    case 100:
      return find<100>(op, deterministic);
    default:
      return nullptr;
  }
}

std::string attention_choice(const DeviceKernel& kernel, const KernelArguments& arguments) {
  const Row row{.grouped = kernel.op.starts_with("grouped"),
                .backward = kernel.op.ends_with("_backward")};
  for (const int sm : {80, 90, 100})
    for (const bool deterministic : {true, false})
      if (&kernel == find_attention(kernel.op, sm, deterministic))
        return choice({sm, deterministic}, row, arguments);
  return {};
}

}  // namespace ashlar::cuda
