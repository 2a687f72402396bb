// Token files end to end, as one source; and how a list of files is divided into training and
// validation.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "ashlar/data.hpp"
#include "data/mapped_file.hpp"

namespace ashlar::detail {

/// The tokens of one file: unsigned little-endian integers of `width` bytes from `offset_bytes` on.
struct TokenFile {
  std::string path;      // as the user wrote it
  std::string relative;  // below the folder that the user named: what the division hashes
  std::shared_ptr<const MappedFile> file;
  std::int64_t offset_bytes = 0;
  int width = 1;  // 1 or 2
  std::int64_t tokens = 0;
};

/// All tokens of `files`, in their order. Every token read is checked against the vocabulary.
std::unique_ptr<TokenSource> concatenate(std::vector<TokenFile> files, std::int64_t vocabulary);

/// @param files not empty, each with tokens. @throws InvalidArgument on a fraction outside [0, 1).
Corpus divide(std::vector<TokenFile> files, const Holdout& holdout, std::int64_t vocabulary);

}  // namespace ashlar::detail
