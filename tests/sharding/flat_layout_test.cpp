// The layout: every element has one owner, offsets are aligned, units do not depend on each other.
#include <doctest/doctest.h>

#include <algorithm>
#include <random>
#include <set>

#include "ashlar/error.hpp"
#include "ashlar/sharding.hpp"
#include "sharding/random_layout.hpp"

using namespace ashlar;
using ashlar::test::RandomModel;

namespace {

constexpr int kSeeds = 200;

bool equal(const Flat& a, const Flat& b) {
  const auto same_entry = [](const Flat::Entry& x, const Flat::Entry& y) {
    return x.parameter == y.parameter && x.begin == y.begin && x.end == y.end;
  };
  return a.name == b.name && a.unit == b.unit && a.dtype == b.dtype && a.trainable == b.trainable &&
         a.elements == b.elements && a.padded == b.padded && a.shard == b.shard &&
         std::ranges::equal(a.entries, b.entries, same_entry);
}

}  // namespace

TEST_CASE("flat layout: every element of every parameter is owned by exactly one rank") {
  for (unsigned seed = 0; seed < kSeeds; ++seed) {
    const RandomModel model(seed);
    const int ranks = 1 + static_cast<int>(seed % 9);
    const FlatLayout layout(model.parameters, model.units, ranks);
    std::vector<int> seen(model.parameters.size(), 0);
    for (const Flat& flat : layout.flats()) {
      std::vector<int> owners(static_cast<std::size_t>(flat.padded), 0);
      for (int rank = 0; rank < ranks; ++rank)
        for (std::int64_t i = rank * flat.shard; i < (rank + 1) * flat.shard; ++i)
          ++owners.at(static_cast<std::size_t>(i));
      REQUIRE(std::ranges::all_of(owners, [](int count) { return count == 1; }));
      std::vector<int> users(static_cast<std::size_t>(flat.padded), 0);
      for (const Flat::Entry& entry : flat.entries) {
        const Parameter& parameter = model.parameters[static_cast<std::size_t>(entry.parameter)];
        ++seen[static_cast<std::size_t>(entry.parameter)];
        REQUIRE(entry.end - entry.begin == parameter.shape.elements());
        for (std::int64_t i = entry.begin; i < entry.end; ++i)
          ++users.at(static_cast<std::size_t>(i));
      }
      REQUIRE(std::ranges::all_of(users, [](int count) { return count <= 1; }));
      REQUIRE(std::ranges::count(users, 1) == flat.elements);
    }
    REQUIRE(std::ranges::all_of(seen, [](int count) { return count == 1; }));
  }
}

TEST_CASE("flat layout: offsets are aligned, padding is as small as ranks and alignment allow") {
  for (unsigned seed = 0; seed < kSeeds; ++seed) {
    const RandomModel model(seed);
    const int ranks = 1 + static_cast<int>(seed % 9);
    const FlatLayout layout(model.parameters, model.units, ranks);
    std::int64_t padded = 0;
    for (const Flat& flat : layout.flats()) {
      REQUIRE(flat.shard % kFlatAlignment == 0);
      REQUIRE(flat.padded == flat.shard * ranks);
      REQUIRE(flat.padded - flat.entries.back().end < ranks * kFlatAlignment);
      std::int64_t end = 0;
      for (const Flat::Entry& entry : flat.entries) {
        REQUIRE(entry.begin % kFlatAlignment == 0);
        REQUIRE(entry.begin >= end);
        REQUIRE(entry.begin - end < kFlatAlignment);
        end = entry.end;
      }
      padded += flat.padded;
    }
    REQUIRE(layout.padded() == padded);
  }
}

TEST_CASE("flat layout: a flat holds one unit, type and trainability in declaration order") {
  for (unsigned seed = 0; seed < kSeeds; ++seed) {
    const RandomModel model(seed);
    const FlatLayout layout(model.parameters, model.units, 3);
    std::set<std::string> names;
    std::int64_t trainable = 0;
    std::int64_t all = 0;
    for (std::size_t f = 0; f < layout.flats().size(); ++f) {
      const Flat& flat = layout.flats()[f];
      REQUIRE(names.insert(flat.name).second);
      if (f > 0) REQUIRE(layout.flats()[f - 1].unit <= flat.unit);
      int last = -1;
      for (const Flat::Entry& entry : flat.entries) {
        const Parameter& parameter = model.parameters[static_cast<std::size_t>(entry.parameter)];
        REQUIRE(entry.parameter > last);
        REQUIRE(parameter.unit == flat.unit);
        REQUIRE(parameter.dtype == flat.dtype);
        REQUIRE(parameter.trainable == flat.trainable);
        REQUIRE(layout.flat_of(entry.parameter) == static_cast<int>(f));
        REQUIRE(&layout.entry_of(entry.parameter) == &entry);
        last = entry.parameter;
        all += parameter.shape.elements();
        if (parameter.trainable) trainable += parameter.shape.elements();
      }
    }
    REQUIRE(layout.elements() == all);
    REQUIRE(layout.elements(true) == trainable);
    REQUIRE(layout.padded(true) <= layout.padded());
  }
}

TEST_CASE("flat layout: a pure function, and a unit's flats do not depend on other units") {
  for (unsigned seed = 0; seed < kSeeds; ++seed) {
    const RandomModel model(seed);
    const FlatLayout layout(model.parameters, model.units, 4);
    const FlatLayout again(model.parameters, model.units, 4);
    REQUIRE(std::ranges::equal(layout.flats(), again.flats(), equal));

    // The same model with unit 0 grown: every other unit's flats stay.
    std::vector<Parameter> grown = model.parameters;
    grown.push_back({.name = "grown", .shape = {1000}, .unit = 0});
    const FlatLayout other(grown, model.units, 4);
    const auto later = [](const FlatLayout& l) {
      std::vector<Flat> flats;
      std::ranges::copy_if(l.flats(), std::back_inserter(flats),
                           [](const Flat& flat) { return flat.unit != 0; });
      return flats;
    };
    REQUIRE(std::ranges::equal(later(layout), later(other), equal));
  }
}

TEST_CASE("flat layout: names tell a unit's flats apart") {
  const FlatLayout layout({{.name = "a", .shape = {3}},
                           {.name = "b", .shape = {3}, .trainable = false},
                           {.name = "c", .shape = {3}, .unit = 1, .trainable = false},
                           {.name = "d", .shape = {3}, .dtype = DType::bf16, .unit = 2},
                           {.name = "e", .shape = {3}, .unit = 2}},
                          {"embedding", "h.0", "h.1"}, 2);
  std::vector<std::string> names;
  for (const Flat& flat : layout.flats()) names.push_back(flat.name);
  CHECK(names ==
        std::vector<std::string>{"embedding", "embedding/frozen", "h.0", "h.1/f32", "h.1/bf16"});
}

TEST_CASE("flat layout: bad declarations are named") {
  const auto build = [](std::vector<Parameter> parameters, int ranks) {
    return FlatLayout(std::move(parameters), {"u"}, ranks);
  };
  CHECK_THROWS_WITH_AS(build({}, 0), "a layout needs at least 1 rank, not 0", InvalidArgument);
  CHECK_THROWS_WITH_AS(build({{.name = "w", .shape = {1}}, {.name = "w", .shape = {2}}}, 1),
                       "parameter 'w' is declared twice", InvalidArgument);
  CHECK_THROWS_WITH_AS(build({{.name = "w", .shape = {1}, .unit = 1}}, 1),
                       "parameter 'w' belongs to unit 1, but there are 1 units", InvalidArgument);
  CHECK_THROWS_WITH_AS(build({{.name = "w", .shape = {2, -1}}}, 1),
                       "parameter 'w' has a negative extent: [2, -1]", InvalidArgument);
}
