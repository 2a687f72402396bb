// Grouping and validation of shard views.
#include "sharding/checkpoint_shards.hpp"

#include <fmt/format.h>

#include <utility>

#include "ashlar/error.hpp"
#include "sharding/convert.hpp"
#include "sharding/manifest.hpp"

namespace ashlar {

void require_copies(const Communicator& communicator, const FlatLayout& layout) {
  if (communicator.size() % layout.ranks() == 0) return;
  throw InvalidArgument(
      fmt::format("checkpoint: shards of {} ranks, but the communicator has {}; pass the one that "
                  "the step was made with",
                  layout.ranks(), communicator.size()));
}

std::vector<FlatShards> group_by_flat(const FlatLayout& layout, std::span<const ShardView> shards) {
  std::vector<FlatShards> flats(layout.flats().size());
  for (const ShardView& shard : shards) {
    if (shard.flat < 0 || shard.flat >= static_cast<int>(flats.size()))
      throw InvalidArgument(
          fmt::format("checkpoint: there is no flat {} for role '{}'", shard.flat, shard.role));
    const auto index = static_cast<std::size_t>(shard.flat);
    const Flat& flat = layout.flats()[index];
    if (shard.values.elements() != flat.shard || !shard.values.contiguous() ||
        !convertible(DType::f32, shard.values.dtype))
      throw InvalidArgument(fmt::format("checkpoint: '{}' of flat '{}' is {} {}, not {} elements",
                                        shard.role, flat.name, name_of(shard.values.dtype),
                                        to_string(shard.values.shape), flat.shard));
    FlatShards& views = flats[index];
    const bool weight = shard.role == "parameter" || shard.role == "master";
    auto [stored, fresh] =
        views.saved.emplace(weight ? kWeight : std::string_view(shard.role), shard.values);
    if (fresh) continue;
    if (!weight || views.rounded)
      throw InvalidArgument(
          fmt::format("checkpoint: '{}' of flat '{}' is given twice", shard.role, flat.name));
    views.rounded = shard.values;
    if (shard.role == "master") std::swap(stored->second, *views.rounded);
  }
  for (std::size_t i = 0; i < flats.size(); ++i)
    if (!flats[i].saved.contains(std::string(kWeight)))
      throw InvalidArgument(
          fmt::format("checkpoint: flat '{}' has no weights", layout.flats()[i].name));
  return flats;
}

}  // namespace ashlar
