// Offsets of parameters in flats: a pure function of the declared parameters, their units and the
// number of ranks.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <tuple>
#include <unordered_set>
#include <utility>

#include "ashlar/error.hpp"
#include "ashlar/sharding.hpp"

namespace ashlar {
namespace {

std::int64_t round_up(std::int64_t value, std::int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

void validate(std::span<const Parameter> parameters, std::span<const std::string> units,
              int ranks) {
  if (ranks < 1)
    throw InvalidArgument(fmt::format("a layout needs at least 1 rank, not {}", ranks));
  std::unordered_set<std::string_view> names;
  for (const Parameter& parameter : parameters) {
    if (!names.insert(parameter.name).second)
      throw InvalidArgument(fmt::format("parameter '{}' is declared twice", parameter.name));
    if (parameter.unit < 0 || parameter.unit >= static_cast<int>(units.size()))
      throw InvalidArgument(fmt::format("parameter '{}' belongs to unit {}, but there are {} units",
                                        parameter.name, parameter.unit, units.size()));
    if (std::ranges::any_of(parameter.shape, [](std::int64_t extent) { return extent < 0; }))
      throw InvalidArgument(fmt::format("parameter '{}' has a negative extent: {}", parameter.name,
                                        to_string(parameter.shape)));
  }
}

/// The unit's name, and what tells its flats apart when it has several.
std::string name_flat(const Flat& flat, std::string_view unit, std::span<const Flat> flats) {
  bool other_dtype = false;
  bool other_trainable = false;
  for (const Flat& other : flats) {
    if (other.unit != flat.unit) continue;
    other_dtype |= other.dtype != flat.dtype;
    other_trainable |= other.trainable != flat.trainable;
  }
  std::string name(unit);
  if (other_dtype) name += fmt::format("/{}", name_of(flat.dtype));
  if (other_trainable && !flat.trainable) name += "/frozen";
  return name;
}

}  // namespace

FlatLayout::FlatLayout(std::vector<Parameter> parameters, std::vector<std::string> units, int ranks)
    : parameters_(std::move(parameters)), units_(std::move(units)), ranks_(ranks) {
  validate(parameters_, units_, ranks);
  std::map<std::tuple<int, bool, DType>, Flat> flats;  // by unit, trainable before frozen, type
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    const Parameter& parameter = parameters_[i];
    Flat& flat = flats[{parameter.unit, !parameter.trainable, parameter.dtype}];
    const std::int64_t elements = parameter.shape.elements();
    const std::int64_t end = flat.entries.empty() ? 0 : flat.entries.back().end;
    const std::int64_t begin = round_up(end, kFlatAlignment);
    flat.entries.push_back({static_cast<int>(i), begin, begin + elements});
    flat.elements += elements;
  }
  for (auto& [key, flat] : flats) {
    std::tie(flat.unit, std::ignore, flat.dtype) = key;
    flat.trainable = !std::get<1>(key);
    flat.padded = round_up(flat.entries.back().end, kFlatAlignment * ranks_);
    flat.shard = flat.padded / ranks_;
    flats_.push_back(std::move(flat));
  }
  flat_of_.resize(parameters_.size());
  for (std::size_t f = 0; f < flats_.size(); ++f) {
    flats_[f].name = name_flat(flats_[f], units_[static_cast<std::size_t>(flats_[f].unit)], flats_);
    for (const Flat::Entry& entry : flats_[f].entries)
      flat_of_[static_cast<std::size_t>(entry.parameter)] = static_cast<int>(f);
  }
}

const Flat::Entry& FlatLayout::entry_of(int parameter) const {
  const Flat& flat = flats_[static_cast<std::size_t>(flat_of(parameter))];
  return *std::ranges::lower_bound(flat.entries, parameter, {}, &Flat::Entry::parameter);
}

std::int64_t FlatLayout::elements(bool trainable_only) const {
  std::int64_t sum = 0;
  for (const Flat& flat : flats_)
    if (flat.trainable || !trainable_only) sum += flat.elements;
  return sum;
}

std::int64_t FlatLayout::padded(bool trainable_only) const {
  std::int64_t sum = 0;
  for (const Flat& flat : flats_)
    if (flat.trainable || !trainable_only) sum += flat.padded;
  return sum;
}

}  // namespace ashlar
