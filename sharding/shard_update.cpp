#include "sharding/shard_update.hpp"

#include <algorithm>

#include "sharding/flat_update.hpp"
#include "sharding/sharded_states.hpp"

namespace ashlar {

ShardUpdate::ShardUpdate(const FlatLayout& layout, const Registered& registered, int stage,
                         const StateViews& states, const Optimizer& rule, int rank)
    : layout_(layout), registered_(registered), rule_(rule) {
  const auto roles = rule.states();
  for (int f = 0; f < static_cast<int>(layout.flats().size()); ++f) {
    const Flat& flat = layout.flats()[static_cast<std::size_t>(f)];
    if (!flat.trainable) continue;
    Part part{f, 0, flat.padded, {}, {}, {}};
    if (stage > 0) {
      part.first = rank * flat.shard;
      part.last = part.first + flat.shard;
    }
    const auto own = [&](std::string_view role) {
      const TensorView& view = states.find(state_name(flat, role))->second;
      return stage > 0 ? own_part(flat, view, rank) : view;
    };
    if (has_master(flat)) part.master = own("master");
    if (registered.owned) part.parameter = own("parameter");
    for (std::size_t s = 0; s < roles.size(); ++s) part.states[s] = own(roles[s]);
    parts_.push_back(part);
  }
}

void ShardUpdate::fill_masters() const {
  for (const Part& part : parts_) {
    if (part.master.data != nullptr)
      copy_in(flat(part), registered_.values, part.first, part.master);
  }
}

void ShardUpdate::step(const GradientReducer& gradients, const StepScalars& scalars,
                       ThreadPool& pool) const {
  for (const Part& part : parts_) {
    const auto& entries = flat(part).entries;
    for_each_part(
        pool, part.first, part.last, entries.size(),
        [&](std::size_t e) { return std::pair(entries[e].begin, entries[e].end); },
        [&](std::size_t e, std::int64_t begin, std::int64_t end) {
          const UpdateViews o = operands(part, entries[e], begin, end, gradients);
          const Segment segment{0, end - begin, o.decay};
          rule_.step(o.master, o.parameter, o.gradient, {o.states.data(), rule_.states().size()},
                     {&segment, 1}, scalars);
        });
  }
}

void ShardUpdate::step(const GradientReducer& gradients, const StepScalars& scalars,
                       const ElementOps& ops, const OptimizerConfig& config,
                       const TensorView& factor) const {
  std::vector<UpdateViews> views;
  for (const Part& part : parts_) {
    for (const Flat::Entry& entry : flat(part).entries) {
      const std::int64_t begin = std::max(entry.begin, part.first);
      const std::int64_t end = std::min(entry.end, part.last);
      if (begin < end) views.push_back(operands(part, entry, begin, end, gradients));
    }
  }
  ops.update(config, views, scalars, factor);
}

/// Elements [begin, end) of the flat, all of one parameter.
UpdateViews ShardUpdate::operands(const Part& part, const Flat::Entry& entry, std::int64_t begin,
                                  std::int64_t end, const GradientReducer& gradients) const {
  const auto own = [&](const TensorView& view) {
    return view.flat_slice(begin - part.first, end - begin);
  };
  const auto p = static_cast<std::size_t>(entry.parameter);
  const TensorView parameter =
      registered_.owned ? own(part.parameter)
                        : registered_.values[p].flat_slice(begin - entry.begin, end - begin);
  const bool mixed = part.master.data != nullptr;
  UpdateViews result{.master = mixed ? own(part.master) : parameter,
                     .parameter = mixed ? parameter : TensorView(),
                     .gradient = gradients.sum(part.flat, entry, begin, end),
                     .states = {},
                     .decay = layout_.parameters()[p].decay};
  for (std::size_t s = 0; s < rule_.states().size(); ++s) result.states[s] = own(part.states[s]);
  return result;
}

}  // namespace ashlar
