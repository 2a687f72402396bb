#include "sharding/collective_ops.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "ashlar/device_memory.hpp"
#include "ashlar/error.hpp"
#include "runtime/thread_pool.hpp"
#include "sharding/flat_update.hpp"
#include "sharding/transfers.hpp"

namespace ashlar {
namespace {

using Types = std::span<const TensorType>;

constexpr std::string_view kSharded = "the shard pass adds it after differentiation";

const OpDef kSliceFlat{.name = "slice_flat",
                       .shape =
                           [](Types in, const Attributes& a) {
                             return std::vector<TensorType>{{in[0].dtype, a.shape("shape")}};
                           },
                       .not_differentiable = kSharded,
                       .view = [](const TensorType&, const Shape&, const TensorType& out,
                                  const Attributes& a) -> std::optional<ViewLayout> {
                         return ViewLayout{a.integer("offset"), 0, contiguous_strides(out.shape)};
                       }};

const OpDef kOwnShard{.name = "own_shard",
                      .shape =
                          [](Types in, const Attributes& a) {
                            return std::vector<TensorType>{{in[0].dtype, {a.integer("shard")}}};
                          },
                      .not_differentiable = kSharded,
                      .view = [](const TensorType&, const Shape&, const TensorType&,
                                 const Attributes& a) -> std::optional<ViewLayout> {
                        return ViewLayout{0, a.integer("shard"), {1}};
                      }};

/// Zeroes what no part covers, then copies the parts that are not in place.
void run_pack(const KernelArguments& k) {
  const TensorView out = k.outputs[0];
  const auto& offsets = k.attributes.list("offsets");
  const std::int64_t element = size_of(out.dtype);
  std::int64_t end = 0;
  for (std::size_t i = 0; i < offsets.size(); ++i) {
    const TensorView& part = k.inputs[i + 1];
    std::byte* target = out.data + offsets[i] * element;
    if (k.inputs[0].data == nullptr)
      std::memset(out.data + end * element, 0,
                  static_cast<std::size_t>((offsets[i] - end) * element));
    if (part.data != target) std::memcpy(target, part.data, static_cast<std::size_t>(part.bytes()));
    end = offsets[i] + part.elements();
  }
  if (k.inputs[0].data != nullptr) return;
  std::memset(out.data + end * element, 0,
              static_cast<std::size_t>((out.elements() - end) * element));
}

const OpDef kPack{
    .name = "pack",
    .shape =
        [](Types in, const Attributes& a) {
          return std::vector<TensorType>{{in[1].dtype, {a.integer("elements")}}};
        },
    .not_differentiable = kSharded,
    .must_reuse =
        [](std::size_t, const Attributes&) {
          return std::vector<std::pair<int, int>>{{0, 0}};
        },
    .place = [](std::size_t input, const Attributes& a) -> std::optional<std::int64_t> {
      if (input == 0) return std::nullopt;
      return a.list("offsets")[input - 1];
    },
    .recompute = false,
    .run = run_pack};

Work start_gather(const KernelArguments& k) {
  Transfers transfers;
  for (std::size_t i = 0; i < k.outputs.size(); ++i)
    transfers.add(as_flat(k.inputs[i]), as_flat(k.outputs[i]));
  return k.context.communicator->all_gather(transfers.span(), k.label, k.context.stream);
}

const OpDef kGather{.name = "gather",
                    .shape =
                        [](Types in, const Attributes& a) {
                          std::vector<TensorType> out;
                          for (const TensorType& shard : in)
                            out.push_back({shard.dtype, {shard.elements() * a.integer("ranks")}});
                          return out;
                        },
                    .not_differentiable = kSharded,
                    .recompute = false,
                    .start = start_gather};

const OpDef kGatherInto{.name = "gather_into",
                        .shape =
                            [](Types in, const Attributes&) {
                              return std::vector<TensorType>(in.begin() + in.size() / 2, in.end());
                            },
                        .not_differentiable = kSharded,
                        .must_reuse =
                            [](std::size_t inputs, const Attributes&) {
                              std::vector<std::pair<int, int>> pairs;
                              for (int i = 0; i < static_cast<int>(inputs / 2); ++i)
                                pairs.emplace_back(i, static_cast<int>(inputs / 2) + i);
                              return pairs;
                            },
                        .recompute = false,
                        .start = start_gather};

Work start_reduce_scatter(const KernelArguments& k) {
  const std::size_t flats = k.outputs.size() - 1;
  Transfers transfers;
  for (std::size_t i = 0; i < flats; ++i)
    transfers.add(as_flat(k.inputs[i]), as_flat(k.outputs[i]));
  ReduceOptions options;
  options.accumulate = k.attributes.integer("accumulate") != 0 && k.context.micro_batch > 0;
  const bool last = k.attributes.integer("accumulate") == 0 ||
                    k.context.micro_batch + 1 == k.context.micro_batches;
  options.round_to_bf16 = k.attributes.integer("round_bf16") != 0 && last;
  options.sum_of_squares = k.outputs[flats].span<double>();
  return k.context.communicator->reduce_scatter(transfers.span(), options, k.label,
                                                k.context.stream);
}

const OpDef kReduceScatter{
    .name = "reduce_scatter",
    .shape =
        [](Types in, const Attributes&) {
          std::vector<TensorType> out(in.begin() + in.size() / 2, in.end());
          out.push_back({DType::f64, {static_cast<std::int64_t>(in.size() / 2)}});
          return out;
        },
    .not_differentiable = kSharded,
    .must_reuse = kGatherInto.must_reuse,
    .recompute = false,
    .start = start_reduce_scatter};

const OpDef kAllReduce{
    .name = "all_reduce",
    .shape = [](Types in, const Attributes&) { return std::vector<TensorType>{in[0]}; },
    .not_differentiable = kSharded,
    .recompute = false,
    .start =
        [](const KernelArguments& k) {
          const StreamRef stream = k.context.stream;
          copy_async(k.outputs[0].data, k.inputs[0].data, k.inputs[0].bytes(), stream);
          return k.context.communicator->all_reduce(as_flat(k.outputs[0]), k.label, stream);
        }};

// Resolvers of clones run before the sanitizers do; clang does not clone templates.
#if defined(__x86_64__) && !defined(__clang__) && !defined(__SANITIZE_THREAD__) && \
    !defined(__SANITIZE_ADDRESS__)
#define ASHLAR_CLONES __attribute__((target_clones("default", "avx2", "avx512f")))
#else
#define ASHLAR_CLONES
#endif

template <typename T>
ASHLAR_CLONES void add_into(T* sum, const T* x, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) sum[i] += x[i];
}

template <typename T>
void accumulate_as(const KernelArguments& k) {
  constexpr std::int64_t kChunk = 1 << 16;
  T* const sum = k.outputs[0].as<T>();
  const T* const x = k.inputs[1].as<T>();
  const std::int64_t elements = k.outputs[0].elements();
  const auto chunk = [&](int task) {
    const std::int64_t begin = task * kChunk, n = std::min(kChunk, elements - begin);
    if (k.context.micro_batch == 0) {
      std::copy_n(x + begin, n, sum + begin);
    } else {
      add_into(sum + begin, x + begin, n);
    }
  };
  k.context.pool->parallel(static_cast<int>((elements + kChunk - 1) / kChunk), chunk);
}

void run_accumulate(const KernelArguments& k) {
  if (k.outputs[0].dtype == DType::f64) {
    accumulate_as<double>(k);
  } else {
    accumulate_as<float>(k);
  }
}

const OpDef kAccumulate{
    .name = "accumulate",
    .shape =
        [](Types in, const Attributes&) {
          if (!(in[0] == in[1]) || (in[0].dtype != DType::f32 && in[0].dtype != DType::f64)) {
            throw InvalidArgument("sums are f32 or f64, of the type of what is added");
          }
          return std::vector<TensorType>{in[0]};
        },
    .not_differentiable = kSharded,
    .must_reuse =
        [](std::size_t, const Attributes&) {
          return std::vector<std::pair<int, int>>{{0, 0}};
        },
    .recompute = false,
    .run = run_accumulate};

void run_norm(const KernelArguments& k) {
  const auto ranks = static_cast<std::size_t>(k.attributes.integer("ranks"));
  const double norm = norm_of(k.inputs[0].span<double>(), ranks);
  *k.outputs[0].as<double>() = norm;
  *k.outputs[1].as<double>() = clip_factor(norm, k.attributes.number("clip"));
}

const OpDef kNorm{.name = "gradient_norm",
                  .shape =
                      [](Types, const Attributes&) {
                        return std::vector<TensorType>{{DType::f64, {}}, {DType::f64, {}}};
                      },
                  .not_differentiable = kSharded,
                  .run = run_norm};

}  // namespace

Attributes among(Among who, int ranks) {
  return {{"ranks", std::int64_t{ranks}}, {kAmong, static_cast<std::int64_t>(who)}};
}

Value slice_flat(Value flat, std::int64_t offset, const Shape& shape) {
  return flat.tracer().apply1(kSliceFlat, {flat}, {{"offset", offset}, {"shape", shape}});
}

Value own_shard(Value flat, std::int64_t shard) {
  return flat.tracer().apply1(kOwnShard, {flat}, {{"shard", shard}});
}

Value pack(Tracer& tracer, Value base, std::span<const Value> parts,
           std::span<const std::int64_t> offsets, std::int64_t elements) {
  std::vector<Value> inputs{base};
  inputs.insert(inputs.end(), parts.begin(), parts.end());
  return tracer.apply(kPack, inputs,
                      {{"offsets", std::vector<std::int64_t>(offsets.begin(), offsets.end())},
                       {"elements", elements}})[0];
}

std::vector<Value> gather(Tracer& tracer, std::span<const Value> shards, int ranks, bool prefetch) {
  Attributes attributes = among(Among::shards, ranks);
  if (prefetch) attributes.set("prefetch", std::int64_t{1});
  auto wholes = tracer.apply(kGather, shards, attributes);
  for (const Value& whole : wholes)
    tracer.graph()[whole.id()].category = Category::gathered_parameter;
  return wholes;
}

std::vector<Value> gather_into(Tracer& tracer, std::span<const Value> shards,
                               std::span<const Value> wholes, int ranks) {
  std::vector<Value> inputs(shards.begin(), shards.end());
  inputs.insert(inputs.end(), wholes.begin(), wholes.end());
  return tracer.apply(kGatherInto, inputs, among(Among::shards, ranks));
}

std::vector<Value> reduce_scatter(Tracer& tracer, std::span<const Value> flats,
                                  std::span<const Value> shards, int ranks, bool accumulate,
                                  bool round_bf16) {
  std::vector<Value> inputs(flats.begin(), flats.end());
  inputs.insert(inputs.end(), shards.begin(), shards.end());
  Attributes attributes = among(Among::shards, ranks);
  attributes.set("accumulate", std::int64_t{accumulate});
  attributes.set("round_bf16", std::int64_t{round_bf16});
  return tracer.apply(kReduceScatter, inputs, std::move(attributes));
}

Value all_reduce(Value x, int ranks) {
  return x.tracer().apply1(kAllReduce, {x}, among(Among::world, ranks));
}

Value accumulate(Value sum, Value x) { return sum.tracer().apply1(kAccumulate, {sum, x}); }

std::pair<Value, Value> gradient_norm(Value squares, int ranks, double clip) {
  const auto out = squares.tracer().apply(kNorm, {&squares, 1},
                                          {{"ranks", std::int64_t{ranks}}, {"clip", clip}});
  return {out[0], out[1]};
}

}  // namespace ashlar
