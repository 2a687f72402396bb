// Files in the IDX format of MNIST and its successors, plain or gzipped. They are read through a
// mapping: a gzipped one is unpacked once, into the user's cache.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>

#include "data/mapped_file.hpp"

namespace vision {

/// Unsigned bytes with extents, mapped read-only.
class IdxFile {
 public:
  /// @param path of the plain file; where there is none, `path`.gz is unpacked into `cache` (made
  /// if need be) unless it lies there already.
  /// @param rank number of extents expected, 1 to 3
  /// @throws InvalidArgument naming the file: absent, unreadable, another format, truncated.
  IdxFile(const std::filesystem::path& path, int rank, const std::filesystem::path& cache);

  std::int64_t extent(int axis) const;
  std::span<const std::uint8_t> values() const;

 private:
  ashlar::detail::MappedFile file_;
  int rank_;
};

/// $XDG_CACHE_HOME/ashlar, ~/.cache/ashlar, or a folder for temporary files.
std::filesystem::path default_cache();

}  // namespace vision
