// Files of uint16 tokens: llm.c's and nanoGPT's.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "ashlar/error.hpp"
#include "data/file_source.hpp"

namespace ashlar {
namespace {

namespace fs = std::filesystem;

constexpr std::int32_t kMagic = 20240520;
constexpr std::int64_t kHeaderBytes = 1024;
constexpr std::int64_t kCheckedAtOnce = 1 << 20;

struct Header {
  std::int32_t magic;
  std::int32_t version;
  std::int32_t tokens;
};

/// llm.c's formats all start with the date of their design and a small version. Read as GPT-2
/// tokens, the first word would be 54000 or more, beyond the vocabulary.
bool has_header(const Header& header) {
  return header.magic / 10000 == kMagic / 10000 && header.version >= 0 && header.version < 256;
}

detail::TokenFile open_file(const fs::path& path) {
  auto file = std::make_shared<const detail::MappedFile>(path);
  const auto bytes = static_cast<std::int64_t>(file->bytes().size());
  if (bytes == 0) throw InvalidArgument(fmt::format("'{}' is empty", path.string()));
  if (bytes % 2 != 0)
    throw InvalidArgument(
        fmt::format("'{}' is no file of uint16 tokens: it has an odd number of bytes ({})",
                    path.string(), bytes));
  Header header{};
  if (bytes >= kHeaderBytes) std::memcpy(&header, file->bytes().data(), sizeof(header));
  detail::TokenFile tokens{path.string(), path.filename().string(), std::move(file), 0, 2,
                           bytes / 2};
  if (!has_header(header)) return tokens;

  if (header.magic != kMagic || header.version != 1)
    throw InvalidArgument(fmt::format(
        "'{}' has magic {} and version {}; token files have {} and 1: it holds something else",
        path.string(), header.magic, header.version, kMagic));
  tokens.offset_bytes = kHeaderBytes;
  tokens.tokens = (bytes - kHeaderBytes) / 2;
  if (tokens.tokens != header.tokens)
    throw InvalidArgument(fmt::format(
        "'{}' is {}: its header says {} tokens, {} follow", path.string(),
        tokens.tokens < header.tokens ? "truncated" : "damaged", header.tokens, tokens.tokens));
  if (tokens.tokens == 0) throw InvalidArgument(fmt::format("'{}' is empty", path.string()));
  return tokens;
}

}  // namespace

Corpus open_tokens(std::span<const fs::path> paths, std::int64_t vocabulary,
                   const Holdout& holdout) {
  if (paths.empty()) throw InvalidArgument("no tokens: name at least one file");
  std::vector<detail::TokenFile> files;
  for (const fs::path& path : paths) {
    files.push_back(open_file(path));
    const auto start = detail::concatenate({files.back()}, vocabulary);
    std::vector<std::int32_t> checked(
        static_cast<std::size_t>(std::min(start->size(), kCheckedAtOnce)));
    start->copy(0, checked);
  }
  return detail::divide(std::move(files), holdout, vocabulary);
}

}  // namespace ashlar
