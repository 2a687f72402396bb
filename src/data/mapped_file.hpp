// A whole file as bytes, read by the kernel when touched.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <utility>

namespace ashlar::detail {

/// Move-only owner of a read-only mapping. An empty file gives no bytes.
class MappedFile {
 public:
  /// @throws InvalidArgument naming the path and why it cannot be read.
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept : bytes_(std::exchange(other.bytes_, {})) {}
  MappedFile& operator=(MappedFile&& other) noexcept {
    std::swap(bytes_, other.bytes_);
    return *this;
  }

  std::span<const std::byte> bytes() const { return bytes_; }

 private:
  std::span<const std::byte> bytes_;
};

}  // namespace ashlar::detail
