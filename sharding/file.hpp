// Files of training state: written whole or not at all, read with every touched byte checked.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "base/hash.hpp"

namespace ashlar {

/// Checksums cover blocks of this many bytes of a file; the last block may be shorter.
inline constexpr std::int64_t kChecksumBlock = 1 << 20;

/// A file descriptor that closes itself.
class FileHandle {
 public:
  FileHandle() = default;
  explicit FileHandle(int descriptor) : descriptor_(descriptor) {}
  ~FileHandle() { close(); }
  FileHandle(FileHandle&& other) noexcept : descriptor_(other.release()) {}
  FileHandle& operator=(FileHandle&& other) noexcept {
    if (this != &other) {
      close();
      descriptor_ = other.release();
    }
    return *this;
  }
  int get() const { return descriptor_; }
  void close() noexcept;

 private:
  int release() noexcept {
    const int descriptor = descriptor_;
    descriptor_ = -1;
    return descriptor;
  }
  int descriptor_ = -1;
};

/// Writes `path` under a temporary name beside it; commit() makes it durable and then visible, in
/// one step. Without commit() whatever stood at `path` stays as it was and nothing is left behind.
/// Every failure (a full disk, a folder without permission) is InvalidArgument naming the path.
class OutputFile {
 public:
  explicit OutputFile(std::filesystem::path path);
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  void write(std::span<const std::byte> bytes);
  void write(std::string_view text) { write(std::as_bytes(std::span(text))); }
  /// fsync, rename, fsync of the folder.
  void commit();

  const std::filesystem::path& path() const { return path_; }
  std::int64_t bytes() const { return bytes_; }
  /// XXH64 of each block written so far.
  const std::vector<std::uint64_t>& checksums() const { return checksums_; }

 private:
  [[noreturn]] void fail(std::string_view what) const;

  std::filesystem::path path_;
  std::filesystem::path temporary_;
  FileHandle file_;
  std::int64_t bytes_ = 0;
  Checksum block_;  // of the block being written
  std::vector<std::uint64_t> checksums_;
  bool committed_ = false;
};

/// Reads any range of a file; nothing is mapped, so a failing disk is an exception and the resident
/// set stays small. One thread at a time.
class InputFile {
 public:
  /// @throws InvalidArgument when the file cannot be opened.
  explicit InputFile(std::filesystem::path path);

  const std::filesystem::path& path() const { return path_; }
  std::int64_t bytes() const { return bytes_; }
  /// From now on reads compare every block that they touch with its checksum.
  /// @throws CorruptCheckpoint when their number does not fit the file's size.
  void require_checksums(std::vector<std::uint64_t> blocks);
  /// Bytes [offset, offset + out.size()). @param what named in errors ("tensor 'wte.weight'").
  /// @throws CorruptCheckpoint naming the path and `what`: a range past the end, a checksum that
  /// differs.
  void read(std::int64_t offset, std::span<std::byte> out, std::string_view what);
  /// The same without checksums: for a header, which must be known to name what is altered. Compare
  /// its blocks by `verify` before its contents are used.
  void read_raw(std::int64_t offset, std::span<std::byte> out, std::string_view what) const;
  /// Compares every block of bytes [0, end). @throws CorruptCheckpoint.
  void verify(std::int64_t end, std::string_view what);

 private:
  void load_block(std::int64_t block, std::string_view what);

  std::filesystem::path path_;
  FileHandle file_;
  std::int64_t bytes_ = 0;
  bool verified_ = false;
  std::vector<std::uint64_t> checksums_;
  std::vector<std::byte> block_;  // the bytes of block_index_
  std::int64_t block_index_ = -1;
};

/// The whole of a small text file. @throws InvalidArgument when it cannot be read.
std::string read_text(const std::filesystem::path& path);

/// Makes a folder's entries durable. @throws InvalidArgument.
void sync_folder(const std::filesystem::path& folder);

}  // namespace ashlar
