// Sharded training state on disk: saved by N ranks, loaded by any number, at any ZeRO stage.
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <string_view>

#include "ashlar/communicator.hpp"
#include "ashlar/sharding.hpp"

namespace ashlar {

/// Writes this rank's shards to `directory`: manifest.json and one safetensors file per rank in a
/// fresh subfolder. Each file is written, synced and renamed, the manifest last; until then the
/// previous checkpoint of the directory stays valid, afterwards it is removed. Collective; all
/// ranks see the same file system and either all return or all throw.
/// @param communicator rank r has shard r mod layout.ranks(); copies are not written.
/// @param shards every flat of the layout has one weight (role "master" in f32 where there is one,
/// else "parameter")
///   and, when trainable, the optimizer's states; the same roles on every rank. "parameter" beside
///   "master" is not written: it is the rounded master.
/// @param counters a JSON object (rank 0's is written) that load_checkpoint gives back: step, seed,
/// data position, configuration, ...
/// @throws InvalidArgument naming the path (full disk, no permission), the same message on every
/// rank.
void save_checkpoint(Communicator& communicator, const std::filesystem::path& directory,
                     const FlatLayout& layout, std::span<const ShardView> shards,
                     std::string_view counters);

/// Fills `shards` (as for save_checkpoint; "parameter" beside "master" is filled with the rounded
/// weight, padding with zero) from a checkpoint of any number of ranks, units and weight types, bit
/// for bit where the types agree. Parameters are found by name; every rank reads only the bytes
/// that its shards need, and checks each against its checksum. Collective. @return the counters.
/// @throws InvalidArgument, the same message on every rank, naming file and tensor: a checkpoint
/// that is missing,
///   truncated, altered, of another format or version, or of another model (parameters, shapes,
///   optimizer states).
std::string load_checkpoint(Communicator& communicator, const std::filesystem::path& directory,
                            const FlatLayout& layout, std::span<const ShardView> shards);

struct CheckpointInfo {
  int ranks = 0;         // that saved it
  std::string counters;  // a JSON object
};

/// Reads the manifest alone, before there is a model. @throws InvalidArgument, CorruptCheckpoint.
CheckpointInfo inspect_checkpoint(const std::filesystem::path& directory);

}  // namespace ashlar
