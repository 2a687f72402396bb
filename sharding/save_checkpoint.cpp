// Every rank writes its own file, rank 0 then switches the manifest.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <utility>

#include "ashlar/checkpoint.hpp"
#include "ashlar/error.hpp"
#include "sharding/checkpoint_shards.hpp"
#include "sharding/manifest.hpp"
#include "sharding/safetensors.hpp"

namespace ashlar {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kFolderPrefix = "shards-";

Manifest describe(const FlatLayout& layout, std::span<const FlatShards> shards,
                  std::string_view counters) {
  Manifest manifest;
  manifest.units.assign(layout.units().begin(), layout.units().end());
  manifest.counters = counters;
  for (std::size_t i = 0; i < shards.size(); ++i) {
    const Flat& flat = layout.flats()[i];
    SavedFlat saved{.name = flat.name,
                    .trainable = flat.trainable,
                    .shard = flat.shard,
                    .roles = {},
                    .parameters = {}};
    for (const auto& [role, view] : shards[i].saved) saved.roles[role] = view.dtype;
    for (const Flat::Entry& entry : flat.entries) {
      const Parameter& parameter = layout.parameters()[static_cast<std::size_t>(entry.parameter)];
      saved.parameters.push_back({parameter.name, parameter.shape, entry.begin});
    }
    manifest.flats.push_back(std::move(saved));
  }
  return manifest;
}

std::vector<std::string> agreement_lines(const Manifest& manifest) {
  std::vector<std::string> lines;
  for (const SavedFlat& flat : manifest.flats)
    for (const auto& [role, dtype] : flat.roles)
      lines.push_back(fmt::format("{} {} x {}", flat.tensor(role), flat.shard, name_of(dtype)));
  return lines;
}

/// N of "shards-N", 0 for other names.
std::int64_t generation_of(const fs::path& folder) {
  const std::string name = folder.filename().string();
  if (!name.starts_with(kFolderPrefix)) return 0;
  std::int64_t number = 0;
  const char* end = name.data() + name.size();
  const auto [stop, error] = std::from_chars(name.data() + kFolderPrefix.size(), end, number);
  return error == std::errc() && stop == end ? std::max<std::int64_t>(number, 0) : 0;
}

std::string folder_name(std::int64_t generation) {
  return fmt::format("{}{}", kFolderPrefix, generation);
}

std::int64_t create_fresh_folder(const fs::path& directory) {
  fs::create_directories(directory);
  std::int64_t last = 0;
  for (const auto& item : fs::directory_iterator(directory))
    last = std::max(last, generation_of(item.path()));
  fs::create_directory(directory / folder_name(last + 1));
  sync_folder(directory);
  return last + 1;
}

void remove_other_folders(const fs::path& directory, std::int64_t keep) {
  std::vector<fs::path> old;
  for (const auto& item : fs::directory_iterator(directory))
    if (const auto number = generation_of(item.path()); number > 0 && number != keep)
      old.push_back(item.path());
  for (const fs::path& folder : old) fs::remove_all(folder);
}

/// After a failure: nothing is left behind, unless the manifest has been switched already.
void remove_abandoned(const fs::path& directory, std::int64_t generation) noexcept {
  try {
    const fs::path folder = folder_name(generation);
    const bool previous = fs::exists(manifest_path(directory));
    if (previous && fs::path(read_manifest(directory).files.at(0).name).parent_path() == folder)
      return;
    fs::remove_all(directory / folder);
  } catch (const std::exception&) {  // the next save removes it
  }
}

SavedFile write_shards(const fs::path& directory, const std::string& name, const Manifest& manifest,
                       std::span<const FlatShards> shards) {
  std::vector<TensorSpec> tensors;
  for (const SavedFlat& flat : manifest.flats)
    for (const auto& [role, dtype] : flat.roles)
      tensors.push_back({flat.tensor(role), dtype, {flat.shard}});
  SafetensorsWriter writer(directory / name, std::move(tensors), {{"format", "ashlar"}});
  for (const FlatShards& flat : shards)
    for (const auto& [role, view] : flat.saved) writer.write(view);
  writer.finish();
  return {name, writer.file().bytes(), writer.file().checksums()};
}

/// Sizes and checksums of all files, which are equally long; of a rank that wrote none, its copy's.
void exchange_files(Communicator& communicator, std::vector<SavedFile>& files) {
  SavedFile& own = files[static_cast<std::size_t>(communicator.rank()) % files.size()];
  std::array<std::int64_t, 2> length{own.bytes, std::ssize(own.checksums)};
  communicator.broadcast({length.data(), DType::i64, {2}}, 0, "length of the checkpoint").wait();
  const auto [bytes, count] = length;
  const auto blocks = static_cast<std::size_t>(count);
  own.checksums.resize(blocks);
  std::vector<std::uint64_t> all(blocks * static_cast<std::size_t>(communicator.size()));
  const TensorView recv(all.data(), DType::i64, {count * communicator.size()});
  const Transfer transfer{{own.checksums.data(), DType::i64, {count}}, recv};
  communicator.all_gather({&transfer, 1}, "checksums of the checkpoint").wait();
  for (std::size_t r = 0; r < files.size(); ++r) {
    files[r].bytes = bytes;
    const auto first = all.begin() + static_cast<std::ptrdiff_t>(r * blocks);
    files[r].checksums.assign(first, first + count);
  }
}

}  // namespace

void save_checkpoint(Communicator& communicator, const fs::path& directory,
                     const FlatLayout& layout, std::span<const ShardView> shards,
                     std::string_view counters) {
  std::vector<FlatShards> flats;
  Manifest manifest;
  std::int64_t generation = 0;
  collectively(communicator, [&] {
    require_copies(communicator, layout);
    flats = group_by_flat(layout, shards);
    manifest = describe(layout, flats, counters);
  });
  require_agreement(communicator, "checkpoint", agreement_lines(manifest));
  collectively(communicator, [&] {
    if (communicator.rank() == 0) generation = create_fresh_folder(directory);
  });
  try {
    communicator.broadcast({&generation, DType::i64, {1}}, 0, "checkpoint's folder").wait();
    for (int rank = 0; rank < layout.ranks(); ++rank)
      manifest.files.push_back(
          {fmt::format("{}/rank-{}.safetensors", folder_name(generation), rank), 0, {}});
    collectively(communicator, [&] {
      if (communicator.rank() >= std::ssize(manifest.files)) return;  // another copy of them
      SavedFile& own = manifest.files[static_cast<std::size_t>(communicator.rank())];
      own = write_shards(directory, own.name, manifest, flats);
    });
    exchange_files(communicator, manifest.files);
    collectively(communicator, [&] {
      if (communicator.rank() == 0) write_manifest(directory, manifest);
    });
  } catch (...) {
    if (communicator.rank() == 0) remove_abandoned(directory, generation);
    throw;
  }
  collectively(communicator, [&] {
    if (communicator.rank() == 0) remove_other_folders(directory, generation);
  });
}

}  // namespace ashlar
