#include "sharding/gradient_path.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "ashlar/error.hpp"
#include "ashlar/ops.hpp"
#include "sharding/collective_ops.hpp"
#include "sharding/replica_ops.hpp"

namespace ashlar {
namespace {

std::size_t index(int i) { return static_cast<std::size_t>(i); }

}  // namespace

GradientPath::GradientPath(Tracer& tracer, const Graph& differentiated, const FlatLayout& layout,
                           const ShardOptions& options, FlatStates& states)
    : tracer_(tracer),
      layout_(layout),
      options_(options),
      states_(states),
      gradients_(layout.parameters().size()) {
  for (const Parameter& parameter : layout.parameters()) {
    if (!parameter.trainable) continue;
    const auto is_gradient = [&](const auto& output) {
      return output.first == gradient_name(parameter.name);
    };
    const auto uses = std::ranges::count_if(differentiated.outputs, is_gradient);
    missing_[parameter.unit] += std::max(1, static_cast<int>(uses));
  }
}

void GradientPath::ready(std::string_view name, Value gradient) {
  const auto parameters = layout_.parameters();
  const auto found = std::find_if(parameters.begin(), parameters.end(),
                                  [&](const Parameter& p) { return p.name == name; });
  if (found == parameters.end())
    throw Error(fmt::format("a gradient is of '{}', which is no parameter", name));
  const int p = static_cast<int>(found - parameters.begin());
  if (keeps_local_sums(options_)) gradient = sum_over_micro_batches(p, gradient);
  if (gradients_[index(p)]) {
    later_uses_[p].push_back(gradient);
  } else {
    gradients_[index(p)] = gradient;
  }
  if (--missing_[found->unit] == 0) unit_complete(found->unit);
}

/// The first use is summed in the gradient's place, later ones of a tied parameter beside it.
Value GradientPath::sum_over_micro_batches(int p, Value gradient) {
  const Parameter& parameter = layout_.parameters()[index(p)];
  if (!gradients_[index(p)]) {
    const Value whole = states_.gradient(layout_.flat_of(p));
    return accumulate(slice_flat(whole, layout_.entry_of(p).begin, parameter.shape), gradient);
  }
  const std::string name =
      fmt::format("{}/use {}", gradient_name(parameter.name), later_uses_[p].size() + 2);
  return accumulate(tracer_.state(name, DType::f32, parameter.shape, Category::communication),
                    gradient);
}

void GradientPath::add_later_uses(int f) {
  for (const Flat::Entry& entry : layout_.flats()[index(f)].entries) {
    const auto uses = later_uses_.find(entry.parameter);
    if (uses == later_uses_.end()) continue;
    Value& sum = gradients_[index(entry.parameter)];
    for (const Value& use : uses->second)
      sum = keeps_local_sums(options_) ? accumulate(sum, use) : add(sum, use);
  }
}

void GradientPath::unit_complete(int unit) {
  for (int f = 0; f < static_cast<int>(layout_.flats().size()); ++f) {
    const Flat& flat = layout_.flats()[index(f)];
    if (flat.unit != unit || !flat.trainable) continue;
    if (keeps_local_sums(options_)) {
      summed_.push_back(f);  // reduced after the last micro-batch
    } else {
      add_later_uses(f);
      join(f);
    }
  }
}

void GradientPath::join(int f) {
  bucket_.push_back(f);
  bucket_bytes_ += layout_.flats()[index(f)].padded * size_of(options_.precision.reduce);
  if (bucket_bytes_ >= options_.zero.bucket_bytes || bucket_.size() >= kMostFlats) flush();
}

/// The flat that this rank sends: packed gradients, in the wire type.
Value GradientPath::outgoing(int f) {
  const Flat& flat = layout_.flats()[index(f)];
  std::vector<Value> parts;
  std::vector<std::int64_t> offsets;
  for (const Flat::Entry& entry : flat.entries) {
    parts.push_back(gradients_[index(entry.parameter)]);
    offsets.push_back(entry.begin);
  }
  const bool adds_up = options_.micro_batches > 1 && options_.reduce_each;
  const bool in_state = keeps_whole_gradients(options_) && !adds_up &&
                        gradient_dtype(options_) == local_gradient_dtype(options_);
  const Value packed =
      pack(tracer_, in_state ? states_.gradient(f) : Value(), parts, offsets, flat.padded);
  if (in_state) {
    whole_[f] = packed;
  } else {
    tracer_.graph()[packed.id()].category = Category::communication;
  }
  const Value wire = cast(packed, options_.precision.reduce);
  if (wire.id() != packed.id()) tracer_.graph()[wire.id()].category = Category::communication;
  return wire;
}

/// The shard that the sum goes to, a part of the gradient state.
Value GradientPath::target(int f) {
  if (!keeps_whole_gradients(options_)) return states_.gradient(f);
  const Value whole = whole_.contains(f) ? whole_.at(f) : states_.gradient(f);
  return own_shard(whole, layout_.flats()[index(f)].shard);
}

void GradientPath::flush() {
  if (bucket_.empty()) return;
  cross();
  tracer_.set_unit(layout_.flats()[index(bucket_.back())].unit);  // what messages name
  std::vector<Value> sends, shards;
  for (const int f : bucket_) sends.push_back(outgoing(f));
  const bool each = options_.micro_batches > 1 && options_.reduce_each;
  const bool one_copy = options_.replicas == 1;
  if (!one_copy && !each) {
    in_group_ = Crossing{bucket_, reduce_scatter_sums(tracer_, sends, layout_.ranks())};
  } else {
    for (const int f : bucket_) shards.push_back(target(f));
    const auto out =
        reduce_scatter(tracer_, sends, shards, layout_.ranks(), each, one_copy && rounds());
    for (std::size_t i = 0; i < bucket_.size(); ++i) reduced_[bucket_[i]] = out[i];
    if (one_copy)
      arrive(bucket_, out);
    else
      in_groups_.push_back(bucket_);
  }
  bucket_.clear();
  bucket_bytes_ = 0;
}

/// Gradients in 16 bits are rounded so although they are kept in f32.
bool GradientPath::rounds() const {
  return options_.precision.parameter == DType::bf16 && gradient_dtype(options_) == DType::f32;
}

/// What ranks have summed over all: the shards and, last, their squares.
void GradientPath::arrive(const std::vector<int>& flats, const std::vector<Value>& out) {
  for (std::size_t i = 0; i < flats.size(); ++i) {
    reduced_[flats[i]] = out[i];
    squares_[flats[i]] =
        slice(out.back(), 0, static_cast<std::int64_t>(i), static_cast<std::int64_t>(i) + 1);
    order_.push_back(flats[i]);
  }
}

/// The bucket that is on its way over the replicas arrives, the one that its group has summed
/// leaves: each travels while others are filled.
void GradientPath::cross() {
  const auto begin = [&](const Crossing& crossing) {
    tracer_.set_unit(layout_.flats()[index(crossing.flats.back())].unit);
  };
  if (const auto there = std::exchange(crossing_, {})) {
    begin(*there);
    std::vector<Value> shards;
    for (const int f : there->flats)
      shards.push_back(reduced_.contains(f) ? reduced_.at(f) : target(f));
    arrive(there->flats, round_sums(tracer_, there->sums, shards, rounds()));
  }
  if (const auto here = std::exchange(in_group_, {})) {
    begin(*here);
    crossing_ = Crossing{here->flats, all_reduce_replicas(here->sums, options_.replicas)};
  }
}

/// What groups have summed over the micro-batches, and what is on its way still.
void GradientPath::cross_all() {
  for (const std::vector<int>& flats : std::exchange(in_groups_, {})) {
    std::vector<Value> shards;
    std::vector<std::int64_t> offsets;
    std::int64_t elements = 0;
    for (const int f : flats) {
      shards.push_back(reduced_.at(f));
      offsets.push_back(elements);
      elements += layout_.flats()[index(f)].shard;
    }
    cross();
    const Value sums = pack(tracer_, {}, shards, offsets, elements);
    tracer_.graph()[sums.id()].category = Category::communication;
    in_group_ = Crossing{flats, sums};
  }
  cross();
  cross();
}

Value GradientPath::norm() {
  std::vector<Value> parts;
  std::vector<std::int64_t> offsets;
  for (const auto& [f, squares] : squares_) {
    offsets.push_back(static_cast<std::int64_t>(parts.size()));
    parts.push_back(squares);
  }
  if (parts.empty()) return constant(tracer_, 0, DType::f64, {layout_.ranks()});
  tracer_.set_unit(-1);
  const Value own = pack(tracer_, {}, parts, offsets, static_cast<std::int64_t>(parts.size()));
  const Value all = gather(tracer_, {&own, 1}, layout_.ranks(), false)[0];
  tracer_.graph()[all.id()].category = Category::communication;
  tracer_.graph()[all.id()].name = "squared norms";
  return all;
}

/// Stage 0: everybody needs the whole summed gradient, which travels in the gradient's type.
void GradientPath::gather_gradients(int f) {
  const Flat& flat = layout_.flats()[index(f)];
  const Value whole = whole_.contains(f) ? whole_.at(f) : states_.gradient(f);
  if (whole.dtype() == options_.precision.parameter) {
    reduced_[f] = gather_into(tracer_, {&reduced_.at(f), 1}, {&whole, 1}, layout_.ranks())[0];
    return;
  }
  const Value narrow = cast(reduced_.at(f), options_.precision.parameter);
  const Value gathered = gather(tracer_, {&narrow, 1}, layout_.ranks(), false)[0];
  const std::int64_t origin = 0;
  const Value wide = cast(gathered, whole.dtype());
  for (const Value& value : {narrow, gathered, wide})
    tracer_.graph()[value.id()].category = Category::communication;
  reduced_[f] = pack(tracer_, whole, {&wide, 1}, {&origin, 1}, flat.padded);
}

/// Flats that are updated by one node each time: all of a type where a device does so in one launch
/// and no flat's gather goes on beside the update of the next.
std::vector<std::vector<int>> GradientPath::updates() const {
  const bool gathers = options_.zero.stage % 3 > 0 && layout_.ranks() > 1;
  std::vector<std::vector<int>> updates;
  std::map<DType, std::size_t> update_of;
  for (const int f : order_) {
    const auto [found, fresh] =
        update_of.try_emplace(layout_.flats()[index(f)].dtype, updates.size());
    if (fresh || gathers || !options_.join_updates)
      updates.push_back({f});
    else
      updates[found->second].push_back(f);
  }
  return updates;
}

UpdateOperands GradientPath::operands_of(int f) {
  const Flat& flat = layout_.flats()[index(f)];
  const bool narrow = flat.dtype != DType::f32;
  Value parameter = states_.parameter(f);
  if (options_.zero.stage % 3 > 0) parameter = own_shard(parameter, flat.shard);
  UpdateOperands operands{
      reduced_.at(f), narrow ? states_.optimizer(f, "master") : parameter, {}, {}};
  for (const std::string& role : states_of(options_.optimizer))
    operands.states.push_back(states_.optimizer(f, role));
  if (narrow) operands.parameter = parameter;
  return operands;
}

void GradientPath::update_flats(const std::vector<int>& flats, Value factor) {
  std::vector<UpdateOperands> operands;
  std::vector<std::int64_t> segments;
  std::int64_t begin = 0;
  for (const int f : flats) {
    const Flat& flat = layout_.flats()[index(f)];
    tracer_.set_unit(flat.unit);
    if (options_.zero.stage == 0) gather_gradients(f);
    operands.push_back(operands_of(f));
    for (const Flat::Entry& entry : flat.entries) {
      const bool decay = layout_.parameters()[index(entry.parameter)].decay;
      segments.insert(segments.end(), {begin + entry.begin, begin + entry.end, decay ? 1 : 0});
    }
    begin += flat.padded;
  }
  if (flats.size() > 1) tracer_.set_unit(-1);
  const auto updated = update(tracer_, options_.optimizer, operands, factor, std::move(segments),
                              options_.zero.stage > 0);
  if (options_.zero.stage % 3 == 0) return;
  const std::size_t each = updated.size() / flats.size();
  for (std::size_t i = 0; i < flats.size(); ++i) {
    tracer_.set_unit(layout_.flats()[index(flats[i])].unit);
    const Value whole = states_.parameter(flats[i]);
    const Value shard = updated[i * each + (operands[i].parameter ? each - 1 : 0)];
    gather_into(tracer_, {&shard, 1}, {&whole, 1}, layout_.ranks());
  }
}

void GradientPath::finish_backward() {
  for (std::size_t p = 0; p < gradients_.size(); ++p) {
    const Parameter& parameter = layout_.parameters()[p];
    if (!parameter.trainable || gradients_[p]) continue;
    ready(parameter.name, constant(tracer_, 0, local_gradient_dtype(options_), parameter.shape));
  }
  tracer_.set_backward(true);
  if (keeps_local_sums(options_)) return;
  flush();
  if (in_groups_.empty()) cross_all();
}

Value GradientPath::finish() {
  tracer_.set_section(Section::update);
  tracer_.set_backward(true);
  for (const int f : std::exchange(summed_, {})) {
    add_later_uses(f);
    join(f);
  }
  flush();
  cross_all();
  const auto [total, factor] = gradient_norm(norm(), layout_.ranks(), options_.clip);
  for (const std::vector<int>& flats : updates())
    update_flats(flats, options_.clip > 0 ? factor : Value());
  return total;
}

}  // namespace ashlar
