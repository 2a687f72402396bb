// Files as bytes, by mmap.
#include "data/mapped_file.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "ashlar/error.hpp"

namespace ashlar::detail {
namespace {

[[noreturn]] void reject(const std::filesystem::path& path, int error) {
  throw InvalidArgument(fmt::format("cannot read '{}': {}{}", path.string(), std::strerror(error),
                                    error == ENOMEM ? "; join the files into fewer" : ""));
}

struct Descriptor {
  int number;
  ~Descriptor() { ::close(number); }
};

}  // namespace

MappedFile::MappedFile(const std::filesystem::path& path) {
  const int number = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (number < 0) reject(path, errno);
  const Descriptor file{number};
  struct stat status {};
  if (::fstat(file.number, &status) != 0) reject(path, errno);
  if (S_ISDIR(status.st_mode)) reject(path, EISDIR);
  if (!S_ISREG(status.st_mode))
    throw InvalidArgument(fmt::format("cannot read '{}': not a regular file", path.string()));
  if (status.st_size == 0) return;
  const auto size = static_cast<std::size_t>(status.st_size);
  void* address = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.number, 0);
  if (address == MAP_FAILED) reject(path, errno);
  bytes_ = {static_cast<const std::byte*>(address), size};
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

}  // namespace ashlar::detail
