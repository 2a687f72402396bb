// Byte-level text.
#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "ashlar/error.hpp"
#include "data/file_source.hpp"

namespace ashlar {
namespace {

namespace fs = std::filesystem;

/// The regular files below a folder, sorted by path; links to folders are not followed.
std::vector<fs::path> files_below(const fs::path& folder) {
  std::vector<fs::path> paths;
  try {
    for (const fs::directory_entry& entry : fs::recursive_directory_iterator(folder)) {
      std::error_code broken_link;
      if (entry.is_regular_file(broken_link)) paths.push_back(entry.path());
    }
  } catch (const fs::filesystem_error& error) {
    throw InvalidArgument(
        fmt::format("cannot read folder '{}': {}", folder.string(), error.code().message()));
  }
  std::ranges::sort(paths);
  return paths;
}

detail::TokenFile open_bytes(const fs::path& path, const fs::path& relative) {
  auto file = std::make_shared<const detail::MappedFile>(path);
  const auto tokens = static_cast<std::int64_t>(file->bytes().size());
  return {path.string(), relative.generic_string(), std::move(file), 0, 1, tokens};
}

}  // namespace

Corpus open_text(std::span<const fs::path> paths, const Holdout& holdout, std::int64_t vocabulary) {
  if (paths.empty()) throw InvalidArgument("no text: name at least one file or folder");
  std::vector<detail::TokenFile> files;
  std::set<fs::path> seen;
  for (const fs::path& path : paths) {
    std::error_code missing;
    if (!fs::is_directory(path, missing)) {
      detail::TokenFile file = open_bytes(path, path.filename());
      if (file.tokens == 0) throw InvalidArgument(fmt::format("'{}' is empty", path.string()));
      if (seen.insert(fs::canonical(path)).second) files.push_back(std::move(file));
      continue;
    }
    bool any = false;
    for (const fs::path& below : files_below(path)) {
      detail::TokenFile file = open_bytes(below, below.lexically_relative(path));
      if (file.tokens == 0) continue;
      any = true;
      if (seen.insert(fs::canonical(below)).second) files.push_back(std::move(file));
    }
    if (!any)
      throw InvalidArgument(
          fmt::format("'{}' holds no text: no file below it has any bytes", path.string()));
  }
  return detail::divide(std::move(files), holdout, vocabulary);
}

}  // namespace ashlar
