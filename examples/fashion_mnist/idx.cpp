#include "fashion_mnist/idx.hpp"

#include <fmt/format.h>
#include <unistd.h>
#include <zlib.h>

#include <array>
#include <cstdlib>
#include <fstream>
#include <memory>

#include "ashlar/error.hpp"

namespace vision {
namespace {

namespace fs = std::filesystem;
using ashlar::InvalidArgument;

constexpr std::size_t kUnsignedBytes = 0x08;  // third byte of the magic number
constexpr std::int64_t kMostBytes = std::int64_t{1} << 32;

void unpack(const fs::path& packed, const fs::path& plain) {
  const std::unique_ptr<gzFile_s, int (*)(gzFile)> in(gzopen(packed.c_str(), "rb"), gzclose);
  if (in == nullptr) throw InvalidArgument(fmt::format("cannot read '{}'", packed.string()));
  const fs::path part = fmt::format("{}.{}", plain.string(), ::getpid());
  std::ofstream out(part, std::ios::binary);
  std::array<char, 1 << 16> bytes;
  int count = 0;
  for (std::int64_t total = 0; (count = gzread(in.get(), bytes.data(), bytes.size())) > 0;) {
    out.write(bytes.data(), count);
    total += count;
    if (total > kMostBytes)
      throw InvalidArgument(fmt::format("'{}' unpacks to more than 4 GiB", packed.string()));
  }
  int error = Z_OK;
  gzerror(in.get(), &error);
  out.close();
  if (count < 0 || error != Z_OK || !out) {
    std::error_code ignored;
    fs::remove(part, ignored);
    throw InvalidArgument(count < 0 || error != Z_OK
                              ? fmt::format("'{}' is damaged or truncated", packed.string())
                              : fmt::format("cannot write '{}'", part.string()));
  }
  fs::rename(part, plain);  // whole or not at all, whoever else unpacks
}

/// The plain file, unpacked if need be.
fs::path plain_file(const fs::path& path, const fs::path& cache) {
  std::error_code error;
  if (fs::exists(path, error)) return path;
  const fs::path packed = path.string() + ".gz";
  if (!fs::exists(packed, error))
    throw InvalidArgument(fmt::format(
        "there is neither '{}' nor its .gz: install Debian's dataset-fashion-mnist, or name the "
        "folder of the four IDX files with --data",
        path.string()));
  const auto written = fs::last_write_time(packed).time_since_epoch().count();
  const std::size_t key = std::hash<std::string>()(
      fmt::format("{} {} {}", fs::absolute(packed).string(), fs::file_size(packed), written));
  const fs::path plain = cache / fmt::format("{}-{:016x}", path.filename().string(), key);
  if (fs::exists(plain, error)) return plain;
  try {
    fs::create_directories(cache);
    unpack(packed, plain);
  } catch (const fs::filesystem_error& failure) {
    throw InvalidArgument(fmt::format("cannot unpack '{}': {}", packed.string(), failure.what()));
  }
  return plain;
}

}  // namespace

IdxFile::IdxFile(const fs::path& path, int rank, const fs::path& cache)
    : file_(plain_file(path, cache)), rank_(rank) {
  const auto bytes = file_.bytes();
  const std::size_t header = 4 + 4 * static_cast<std::size_t>(rank);
  const auto byte = [&](std::size_t i) { return std::to_integer<std::size_t>(bytes[i]); };
  if (bytes.size() < header || byte(0) != 0 || byte(1) != 0 || byte(2) != kUnsignedBytes ||
      byte(3) != static_cast<std::size_t>(rank))
    throw InvalidArgument(
        fmt::format("'{}' is no IDX file of bytes with {} extents", path.string(), rank));
  std::int64_t elements = 1;
  for (int axis = 0; axis < rank; ++axis) {
    if (extent(axis) == 0 || elements > kMostBytes / extent(axis))
      throw InvalidArgument(
          fmt::format("'{}': extent {} is {}", path.string(), axis, extent(axis)));
    elements *= extent(axis);
  }
  const auto found = static_cast<std::int64_t>(bytes.size() - header);
  if (found != elements)
    throw InvalidArgument(
        fmt::format("'{}' holds {} values, not {}", path.string(), found, elements));
}

std::int64_t IdxFile::extent(int axis) const {
  std::int64_t value = 0;
  for (const std::byte b : file_.bytes().subspan(4 + 4 * static_cast<std::size_t>(axis), 4))
    value = value << 8 | std::to_integer<std::int64_t>(b);
  return value;
}

std::span<const std::uint8_t> IdxFile::values() const {
  const auto bytes = file_.bytes().subspan(4 + 4 * static_cast<std::size_t>(rank_));
  return {reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()};
}

fs::path default_cache() {
  if (const char* cache = std::getenv("XDG_CACHE_HOME"); cache != nullptr && *cache != '\0')
    return fs::path(cache) / "ashlar";
  if (const char* home = std::getenv("HOME"); home != nullptr && *home != '\0')
    return fs::path(home) / ".cache" / "ashlar";
  return fs::temp_directory_path() / "ashlar";
}

}  // namespace vision
