// Checkpoints: what N ranks save, M ranks load; nothing damaged or foreign gets through; the
// previous one survives.
#include "ashlar/checkpoint.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <deque>
#include <functional>
#include <random>

#include "ashlar/error.hpp"
#include "base/hash.hpp"
#include "sharding/full_disk.hpp"
#include "sharding/random_layout.hpp"
#include "support/temporary_folder.hpp"

using namespace ashlar;
using namespace ashlar::test;

namespace {

namespace fs = std::filesystem;

/// A float that is no bf16, made from what it belongs to.
float value_of(const std::string& parameter, std::string_view role, std::int64_t element) {
  const std::uint64_t hash = fnv1a64(role, fnv1a64(parameter)) * (2 * element + 3);
  return static_cast<float>(static_cast<std::int32_t>(hash >> 40) - (1 << 23)) / 1024;
}

/// One rank's shards of a layout. Trainable flats in bf16 have masters.
struct State {
  std::deque<std::vector<std::byte>> memory;
  std::vector<ShardView> views;

  State(const FlatLayout& layout, std::vector<std::string> states = {"m", "v"}) {
    for (std::size_t f = 0; f < layout.flats().size(); ++f) {
      const Flat& flat = layout.flats()[f];
      add(f, "parameter", flat.dtype, flat.shard);
      if (!flat.trainable) continue;
      if (flat.dtype != DType::f32) add(f, "master", DType::f32, flat.shard);
      for (const std::string& role : states) add(f, role, DType::f32, flat.shard);
    }
  }

  void add(std::size_t flat, const std::string& role, DType dtype, std::int64_t shard) {
    auto& bytes =
        memory.emplace_back(static_cast<std::size_t>(shard * size_of(dtype)), std::byte{0x5a});
    views.push_back({static_cast<int>(flat), role, {bytes.data(), dtype, {shard}}});
  }

  /// Calls visit(view, parameter, element of the parameter or -1 in padding, index in the shard).
  template <typename Visit>
  void for_each(const FlatLayout& layout, int rank, const Visit& visit) const {
    for (const ShardView& view : views) {
      const Flat& flat = layout.flats()[static_cast<std::size_t>(view.flat)];
      std::vector<std::pair<int, std::int64_t>> owner(static_cast<std::size_t>(flat.padded),
                                                      {-1, -1});
      for (const Flat::Entry& entry : flat.entries)
        for (std::int64_t i = entry.begin; i < entry.end; ++i)
          owner[static_cast<std::size_t>(i)] = {entry.parameter, i - entry.begin};
      for (std::int64_t i = 0; i < flat.shard; ++i) {
        const auto [parameter, element] = owner[static_cast<std::size_t>(rank * flat.shard + i)];
        visit(view, parameter, element, i);
      }
    }
  }

  void fill(const FlatLayout& layout, int rank) {
    for_each(layout, rank, [&](const ShardView& view, int p, std::int64_t element, std::int64_t i) {
      const bool weight = view.role == "parameter" || view.role == "master";
      const float value = p < 0 ? 0
                                : value_of(layout.parameters()[static_cast<std::size_t>(p)].name,
                                           weight ? "weight" : view.role, element);
      if (view.values.dtype == DType::f32) view.values.as<float>()[i] = value;
      if (view.values.dtype == DType::bf16) view.values.as<bf16>()[i] = bf16(value);
    });
  }
};

float element_of(const ShardView& view, std::int64_t i) {
  return view.values.dtype == DType::f32 ? view.values.as<float>()[i]
                                         : float(view.values.as<bf16>()[i]);
}

void save(const fs::path& directory, const RandomModel& model, int ranks,
          const std::string& counters = "{\"step\":3}") {
  const FlatLayout layout(model.parameters, model.units, ranks);
  launch_threads(ranks, [&](Communicator& communicator) {
    State state(layout);
    state.fill(layout, communicator.rank());
    save_checkpoint(communicator, directory, layout, state.views, counters);
  });
}

/// Loads with `ranks` ranks and counts the elements that differ from what was saved by `saved`.
int count_differences(const fs::path& directory, const RandomModel& saved, const RandomModel& model,
                      int ranks) {
  const FlatLayout layout(model.parameters, model.units, ranks);
  std::atomic<int> differences{0};
  launch_threads(ranks, [&](Communicator& communicator) {
    State state(layout);
    load_checkpoint(communicator, directory, layout, state.views);
    state.for_each(layout, communicator.rank(),
                   [&](const ShardView& view, int p, std::int64_t element, std::int64_t i) {
                     float expected = 0;
                     if (p >= 0) {
                       const Parameter& before = saved.parameters[static_cast<std::size_t>(p)];
                       const bool weight = view.role == "parameter" || view.role == "master";
                       expected = value_of(before.name, weight ? "weight" : view.role, element);
                       if (weight && !before.trainable && before.dtype == DType::bf16)
                         expected = bf16(expected);
                       if (view.values.dtype == DType::bf16) expected = bf16(expected);
                     }
                     if (element_of(view, i) != expected) ++differences;
                   });
  });
  return differences;
}

std::string refusal(const std::function<void()>& body) {
  try {
    body();
  } catch (const InvalidArgument& error) {
    return error.what();
  }
  return "accepted";
}

std::string load_refusal(const fs::path& directory, const RandomModel& model, int ranks = 2,
                         const std::vector<std::string>& states = {"m", "v"}) {
  const FlatLayout layout(model.parameters, model.units, ranks);
  return refusal([&] {
    launch_threads(ranks, [&](Communicator& communicator) {
      State state(layout, states);
      load_checkpoint(communicator, directory, layout, state.views);
    });
  });
}

RandomModel simple_model() {
  RandomModel model(0);
  model.units = {"embedding", "h.0"};
  model.parameters = {{.name = "wte", .shape = {50, 7}},
                      {.name = "w", .shape = {33}, .unit = 1},
                      {.name = "frozen", .shape = {5}, .unit = 1, .trainable = false}};
  return model;
}

}  // namespace

TEST_CASE("checkpoint: saved at N ranks and loaded at M, every element is equal") {
  const TemporaryFolder folder;
  for (unsigned seed = 0; seed < 75; ++seed) {
    const RandomModel model(seed);
    const int before = 1 + static_cast<int>(seed % 5);
    const int after = 1 + static_cast<int>(seed / 5 % 5);
    CAPTURE(seed);
    save(folder.path, model, before);
    REQUIRE(count_differences(folder.path, model, model, after) == 0);
  }
}

TEST_CASE(
    "checkpoint: other types, units and declaration order; masters become parameters and back") {
  const TemporaryFolder folder;
  for (unsigned seed = 0; seed < 30; ++seed) {
    const RandomModel saved(seed);
    save(folder.path, saved, 3);
    for (const DType dtype : {DType::f32, DType::bf16}) {
      RandomModel model = saved;
      model.units = {"all", "rest"};
      for (Parameter& parameter : model.parameters) {
        parameter.dtype = dtype;
        parameter.unit %= 2;
      }
      REQUIRE(count_differences(folder.path, saved, model, 2) == 0);
    }
  }
}

TEST_CASE("checkpoint: counters come back, a new save replaces the old one") {
  const TemporaryFolder folder;
  const RandomModel model = simple_model();
  const auto directory = folder / "deep/er";
  save(directory, model, 2, R"({"step": 1, "config": {"lr": 0.1}})");
  save(directory, model, 3, R"({"step": 2, "config": {"lr": 0.1}})");
  const CheckpointInfo info = inspect_checkpoint(directory);
  CHECK(info.ranks == 3);
  CHECK(info.counters == R"({"config":{"lr":0.1},"step":2})");
  int entries = 0;
  for (const auto& item : fs::directory_iterator(directory)) {
    CAPTURE(item.path().string());
    ++entries;
  }
  CHECK(entries == 2);  // the manifest and one folder
  CHECK(contains(refusal([&] { save(directory, model, 1, "[1]"); }), "not a JSON object"));
  CHECK(inspect_checkpoint(directory).ranks == 3);
  CHECK(count_differences(directory, model, model, 2) == 0);
}

TEST_CASE("checkpoint: another model or optimizer is refused with the parameter's name") {
  const TemporaryFolder folder;
  const RandomModel model = simple_model();
  save(folder.path, model, 2);
  const std::string manifest = (folder / "manifest.json").string();
  const auto refused = [&](const RandomModel& other, const std::string& words,
                           const std::vector<std::string>& states = {"m", "v"}) {
    const std::string said = load_refusal(folder.path, other, 2, states);
    CHECK_MESSAGE(contains(said, words), said);
    CHECK(contains(said, manifest));
  };
  RandomModel other = model;
  other.parameters[1].name = "u";
  refused(other, "no parameter 'u'");
  other = model;
  other.parameters.pop_back();
  refused(other, "parameter 'frozen', which the model lacks");
  other = model;
  other.parameters[0].shape = {7, 50};
  refused(other, "'wte' as [50, 7], the model as [7, 50]");
  other = model;
  other.parameters[2].trainable = true;
  refused(other, "no optimizer state 'm' of parameter 'frozen'");
  other = model;
  other.parameters[1].trainable = false;
  refused(other, "optimizer state 'm' of parameter 'w', which is not kept now");
  refused(model, "no optimizer state 'momentum' of parameter 'wte'", {"momentum"});
  refused(model, "the optimizer state 'v'", {"m"});
}

TEST_CASE("checkpoint: missing, truncated, altered and foreign files are refused by name") {
  const TemporaryFolder folder;
  const RandomModel model = simple_model();
  CHECK(contains(load_refusal(folder / "none", model), "no checkpoint in"));
  save(folder.path, model, 2);
  const auto shard_file = folder / "shards-1/rank-1.safetensors";
  const std::string good = slurp(shard_file);
  REQUIRE(!good.empty());
  const auto refused = [&](const std::string& words) {
    const std::string said = load_refusal(folder.path, model, 1);
    CHECK_MESSAGE(contains(said, words), said);
    CHECK_MESSAGE(contains(said, shard_file.string()), said);
  };
  spill(shard_file, good.substr(0, good.size() / 2));
  refused("truncated");
  std::string altered = good;
  altered[good.size() - 10] = static_cast<char>(altered[good.size() - 10] ^ 1);
  spill(shard_file, altered);
  refused("altered");
  spill(shard_file, std::string(good.size(), 'x'));
  refused("altered");
  fs::remove(shard_file);
  refused("No such file");
  spill(shard_file, good);
  CHECK(count_differences(folder.path, model, model, 1) == 0);
  spill(folder / "manifest.json", "{\"step\": 1}");
  CHECK(contains(load_refusal(folder.path, model), "not a checkpoint of Ashlar"));
}

TEST_CASE("checkpoint: mutated files give an error or equal contents") {
  const TemporaryFolder folder;
  const RandomModel model = simple_model();
  save(folder.path, model, 2);
  std::mt19937 random(5);
  for (const std::string name :
       {"manifest.json", "shards-1/rank-0.safetensors", "shards-1/rank-1.safetensors"}) {
    const std::string good = slurp(folder / name);
    int refused = 0;
    for (int round = 0; round < 150; ++round) {
      std::string bytes = good;
      const std::size_t at = random() % bytes.size();
      switch (random() % 3) {
        case 0:
          bytes[at] = static_cast<char>(bytes[at] ^ (1 << random() % 8));
          break;
        case 1:
          bytes.resize(at);
          break;
        default:
          bytes.insert(at, 1, static_cast<char>(random()));
      }
      spill(folder / name, bytes);
      int differences = 0;
      const std::string said =
          refusal([&] { differences = count_differences(folder.path, model, model, 1); });
      REQUIRE(differences == 0);
      refused += said != "accepted";
      if (said != "accepted") CHECK_MESSAGE(contains(said, folder.path.string()), said);
    }
    CHECK(refused > 100);
    spill(folder / name, good);
  }
}

TEST_CASE("checkpoint: a save that fails on one rank fails on all and keeps the previous one") {
  const TemporaryFolder folder;
  const RandomModel model = simple_model();
  save(folder.path, model, 2, "{\"step\":1}");
  RandomModel large = model;
  large.parameters.push_back({.name = "large", .shape = {400000}, .unit = 1});

  std::atomic<int> failed{0};
  const FlatLayout layout(large.parameters, large.units, 3);
  {
    const FullDisk full(1 << 20);
    launch_threads(3, [&](Communicator& communicator) {
      State state(layout);
      state.fill(layout, communicator.rank());
      const std::string said = refusal(
          [&] { save_checkpoint(communicator, folder.path, layout, state.views, "{\"step\":2}"); });
      if (contains(said, "cannot write") && contains(said, "shards-2/rank-0.safetensors")) ++failed;
    });
  }
  CHECK(failed == 3);
  CHECK(!fs::exists(folder / "shards-2"));
  CHECK(inspect_checkpoint(folder.path).counters == "{\"step\":1}");
  CHECK(count_differences(folder.path, model, model, 3) == 0);
  save(folder.path, large, 3, "{\"step\":2}");
  CHECK(count_differences(folder.path, large, large, 1) == 0);
}

TEST_CASE("checkpoint: shards that do not fit the layout are refused") {
  const RandomModel model = simple_model();
  const FlatLayout layout(model.parameters, model.units, 1);
  const auto self = self_communicator();
  const TemporaryFolder folder;
  const auto refused = [&](const auto& change, const std::string& words) {
    State state(layout);
    change(state);
    const std::string said =
        refusal([&] { save_checkpoint(*self, folder.path, layout, state.views, "{}"); });
    CHECK_MESSAGE(contains(said, words), said);
  };
  refused([](State& s) { s.views.erase(s.views.begin()); }, "flat 'embedding' has no weights");
  refused([](State& s) { s.views[1].flat = 9; }, "no flat 9 for role 'm'");
  refused([](State& s) { s.views[1].role = "v"; }, "'v' of flat 'embedding' is given twice");
  refused([](State& s) { s.views[1].values = s.views[1].values.flat_slice(0, 32); },
          "'m' of flat 'embedding' is f32 [32]");
}
