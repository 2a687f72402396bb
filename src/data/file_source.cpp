// One source over many mapped files.
#include "data/file_source.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "ashlar/error.hpp"

namespace ashlar::detail {
namespace {

class FileSource final : public TokenSource {
 public:
  FileSource(std::vector<TokenFile> files, std::int64_t vocabulary)
      : files_(std::move(files)), vocabulary_(vocabulary), name_(files_.front().path) {
    if (files_.size() > 1)
      name_ += fmt::format(" and {} more file{}", files_.size() - 1, files_.size() > 2 ? "s" : "");
    for (const TokenFile& file : files_) begins_.push_back(size_), size_ += file.tokens;
  }

  const std::string& name() const override { return name_; }
  std::int64_t size() const override { return size_; }

  void copy(std::int64_t begin, std::span<std::int32_t> tokens) const override {
    const auto count = static_cast<std::int64_t>(tokens.size());
    if (begin < 0 || count > size_ - begin)
      throw InvalidArgument(
          fmt::format("{}: tokens [{}, {}) asked of {}", name_, begin, begin + count, size_));
    auto file = static_cast<std::size_t>(std::upper_bound(begins_.begin(), begins_.end(), begin) -
                                         begins_.begin() - 1);
    for (; !tokens.empty(); ++file) {
      const std::int64_t first = begin - begins_[file];
      const auto part = static_cast<std::size_t>(
          std::min(files_[file].tokens - first, static_cast<std::int64_t>(tokens.size())));
      read(files_[file], first, tokens.first(part));
      tokens = tokens.subspan(part);
      begin += static_cast<std::int64_t>(part);
    }
  }

 private:
  void read(const TokenFile& file, std::int64_t first, std::span<std::int32_t> tokens) const {
    const std::byte* data = file.file->bytes().data() + file.offset_bytes + first * file.width;
    if (file.width == 1) {
      for (std::int32_t& token : tokens) token = std::to_integer<std::int32_t>(*data++);
    } else {
      for (std::int32_t& token : tokens) {
        std::uint16_t word;
        std::memcpy(&word, data, sizeof(word));
        token = word;
        data += sizeof(word);
      }
    }
    const auto bad = std::ranges::find_if(tokens, [&](auto token) { return token >= vocabulary_; });
    if (bad != tokens.end())
      throw InvalidArgument(
          fmt::format("{}: token {} at position {} is not below the model's vocabulary of {}; use "
                      "a model with a "
                      "larger vocabulary or files of the right tokenizer",
                      file.path, *bad, first + (bad - tokens.begin()), vocabulary_));
  }

  std::vector<TokenFile> files_;
  std::vector<std::int64_t> begins_;  // of each file, in tokens of the whole
  std::int64_t vocabulary_;
  std::int64_t size_ = 0;
  std::string name_;
};

}  // namespace

std::unique_ptr<TokenSource> concatenate(std::vector<TokenFile> files, std::int64_t vocabulary) {
  return std::make_unique<FileSource>(std::move(files), vocabulary);
}

}  // namespace ashlar::detail
