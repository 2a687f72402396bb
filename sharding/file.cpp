// POSIX reads and writes with checksums, and the rename that makes a file appear whole.
#include "sharding/file.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "ashlar/error.hpp"
#include "base/hash.hpp"

namespace ashlar {
namespace {

constexpr std::size_t kMaxTransfer = 1 << 30;  // Linux moves at most 2 GiB per call

std::string reason() { return std::strerror(errno); }

}  // namespace

void FileHandle::close() noexcept {
  if (descriptor_ >= 0) ::close(descriptor_);
  descriptor_ = -1;
}

void sync_folder(const std::filesystem::path& folder) {
  const FileHandle handle(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (handle.get() < 0 || ::fsync(handle.get()) != 0)
    throw InvalidArgument(fmt::format("cannot sync folder {}: {}", folder.string(), reason()));
}

OutputFile::OutputFile(std::filesystem::path path)
    : path_(std::move(path)), temporary_(path_.string() + ".partial") {
  file_ = FileHandle(
      ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0666));
  if (file_.get() < 0) fail("create");
}

OutputFile::~OutputFile() {
  if (!committed_ && file_.get() >= 0) ::unlink(temporary_.c_str());
}

void OutputFile::fail(std::string_view what) const {
  throw InvalidArgument(
      fmt::format("cannot {} {}: {}; what stood there before is untouched; free some space or "
                  "choose another folder",
                  what, path_.string(), reason()));
}

void OutputFile::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const std::int64_t room = kChecksumBlock - bytes_ % kChecksumBlock;
    const auto part = bytes.first(std::min(bytes.size(), static_cast<std::size_t>(room)));
    if (bytes_ % kChecksumBlock == 0) {
      checksums_.push_back(0);
      block_ = {};
    }
    block_.update(part);
    checksums_.back() = block_.digest();
    for (std::size_t done = 0; done < part.size();) {
      const ssize_t n = ::write(file_.get(), part.data() + done, part.size() - done);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) fail("write");
      done += static_cast<std::size_t>(n);
    }
    bytes_ += static_cast<std::int64_t>(part.size());
    bytes = bytes.subspan(part.size());
  }
}

void OutputFile::commit() {
  if (::fsync(file_.get()) != 0) fail("write");
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail("create");
  committed_ = true;
  file_.close();
  sync_folder(path_.has_parent_path() ? path_.parent_path() : ".");
}

InputFile::InputFile(std::filesystem::path path)
    : path_(std::move(path)), file_(::open(path_.c_str(), O_RDONLY | O_CLOEXEC)) {
  struct stat status {};
  if (file_.get() < 0 || ::fstat(file_.get(), &status) != 0)
    throw InvalidArgument(fmt::format("cannot open {}: {}", path_.string(), reason()));
  if (!S_ISREG(status.st_mode))
    throw InvalidArgument(fmt::format("cannot open {}: not a file", path_.string()));
  bytes_ = status.st_size;
}

void InputFile::require_checksums(std::vector<std::uint64_t> blocks) {
  const std::int64_t expected = (bytes_ + kChecksumBlock - 1) / kChecksumBlock;
  if (static_cast<std::int64_t>(blocks.size()) != expected)
    throw CorruptCheckpoint(
        fmt::format("{}: {} checksums for {} blocks", path_.string(), blocks.size(), expected));
  checksums_ = std::move(blocks);
  verified_ = true;
}

void InputFile::read_raw(std::int64_t offset, std::span<std::byte> out,
                         std::string_view what) const {
  if (offset < 0 || offset > bytes_ || static_cast<std::int64_t>(out.size()) > bytes_ - offset)
    throw CorruptCheckpoint(fmt::format("{}: truncated: {} needs bytes up to {}, the file has {}",
                                        path_.string(), what,
                                        offset + static_cast<std::int64_t>(out.size()), bytes_));
  for (std::size_t done = 0; done < out.size();) {
    const ssize_t n =
        ::pread(file_.get(), out.data() + done, std::min(out.size() - done, kMaxTransfer),
                offset + static_cast<std::int64_t>(done));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0)
      throw CorruptCheckpoint(fmt::format("{}: cannot read {}: {}", path_.string(), what,
                                          n == 0 ? "the file has shrunk" : reason()));
    done += static_cast<std::size_t>(n);
  }
}

void InputFile::load_block(std::int64_t block, std::string_view what) {
  if (block == block_index_) return;
  block_index_ = -1;
  const std::int64_t begin = block * kChecksumBlock;
  block_.resize(static_cast<std::size_t>(std::min(kChecksumBlock, bytes_ - begin)));
  read_raw(begin, block_, what);
  if (checksum(block_) != checksums_[static_cast<std::size_t>(block)])
    throw CorruptCheckpoint(fmt::format(
        "{}: altered: the checksum of bytes [{}, {}) differs while reading {}; use another copy",
        path_.string(), begin, begin + static_cast<std::int64_t>(block_.size()), what));
  block_index_ = block;
}

void InputFile::read(std::int64_t offset, std::span<std::byte> out, std::string_view what) {
  const auto past_end = [&] {
    return offset < 0 || offset > bytes_ || static_cast<std::int64_t>(out.size()) > bytes_ - offset;
  };
  if (!verified_ || past_end()) return read_raw(offset, out, what);
  while (!out.empty()) {
    load_block(offset / kChecksumBlock, what);
    const std::int64_t within = offset % kChecksumBlock;
    const auto available = std::span(block_).subspan(static_cast<std::size_t>(within));
    const std::size_t count = std::min(out.size(), available.size());
    std::memcpy(out.data(), available.data(), count);
    out = out.subspan(count);
    offset += static_cast<std::int64_t>(count);
  }
}

void InputFile::verify(std::int64_t end, std::string_view what) {
  for (std::int64_t block = 0; verified_ && block * kChecksumBlock < end; ++block)
    load_block(block, what);
}

std::string read_text(const std::filesystem::path& path) {
  InputFile file(path);
  std::string text(static_cast<std::size_t>(file.bytes()), '\0');
  file.read(0, std::as_writable_bytes(std::span(text)), "the text");
  return text;
}

}  // namespace ashlar
