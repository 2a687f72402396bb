#include "comm/shared_memory.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <iterator>
#include <utility>

#include "ashlar/communicator.hpp"

namespace ashlar {
namespace detail {
namespace {

constexpr std::string_view kName = "ashlar-window-";

[[noreturn]] void refuse(std::string_view what) {
  throw OutOfMemory(fmt::format("shared memory: {}: {}", what, std::strerror(errno)));
}

constexpr std::int64_t kHugePage = std::int64_t{2} << 20;
constexpr int kCollapse = 25;  // MADV_COLLAPSE of Linux 6.1, which older C libraries do not name

std::int64_t page_bytes() { return ::sysconf(_SC_PAGESIZE); }

}  // namespace

SharedMemory SharedMemory::make(const std::string& name, std::int64_t bytes) {
  SharedMemory memory;
  const std::string full = fmt::format("{}{}-{}", kName, ::getpid(), name);
  memory.descriptor_ = ::memfd_create(full.c_str(), MFD_CLOEXEC);
  if (memory.descriptor_ < 0) refuse("memfd_create");
  if (::ftruncate(memory.descriptor_, bytes) != 0) refuse("ftruncate");
  memory.map(bytes);
  return memory;
}

SharedMemory SharedMemory::open(int process, int descriptor, std::int64_t bytes) {
  SharedMemory memory;
  const std::string path = fmt::format("/proc/{}/fd/{}", process, descriptor);
  memory.descriptor_ = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
  if (memory.descriptor_ < 0) refuse("opening " + path);
  memory.map(bytes);
  return memory;
}

// Huge pages of the file need a start on a huge page in every process that maps it.
void SharedMemory::map(std::int64_t bytes) {
  const auto length = static_cast<std::size_t>(align_up(bytes, page_bytes()));
  const std::size_t room = length + static_cast<std::size_t>(kHugePage);
  void* reserved =
      ::mmap(nullptr, room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (reserved == MAP_FAILED) refuse(fmt::format("reserving {}", format_bytes(bytes)));
  auto* begin = static_cast<std::byte*>(reserved);
  const auto address = reinterpret_cast<std::intptr_t>(reserved);
  const auto head = static_cast<std::size_t>(align_up(address, kHugePage) - address);
  void* data = ::mmap(begin + head, length, PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_FIXED | MAP_NORESERVE, descriptor_, 0);
  if (data == MAP_FAILED) {
    ::munmap(reserved, room);
    refuse(fmt::format("mapping {}", format_bytes(bytes)));
  }
  if (head > 0) ::munmap(begin, head);
  ::munmap(begin + head + length, room - head - length);
  data_ = static_cast<std::byte*>(data);
  bytes_ = bytes;
  ::madvise(data_, length, MADV_HUGEPAGE);
  ::madvise(data_, length, MADV_DONTDUMP);
}

void SharedMemory::prefer_huge_pages(std::int64_t first, std::int64_t bytes) const {
  const std::int64_t begin = align_up(first, kHugePage);
  const std::int64_t end = (first + bytes) / kHugePage * kHugePage;
  if (begin >= end) return;
  for (std::int64_t at = begin; at < end; at += kHugePage) data_[at] = std::byte{0};
  ::madvise(data_ + begin, static_cast<std::size_t>(end - begin), kCollapse);
}

SharedMemory::~SharedMemory() {
  if (data_ != nullptr) ::munmap(data_, static_cast<std::size_t>(bytes_));
  if (descriptor_ >= 0) ::close(descriptor_);
}

SharedMemory::SharedMemory(SharedMemory&& other) noexcept
    : descriptor_(std::exchange(other.descriptor_, -1)),
      data_(std::exchange(other.data_, nullptr)),
      bytes_(std::exchange(other.bytes_, 0)) {}

SharedMemory& SharedMemory::operator=(SharedMemory&& other) noexcept {
  std::swap(descriptor_, other.descriptor_);
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

SharedResource::SharedResource(const SharedMemory& memory, std::int64_t first) : memory_(memory) {
  holes_[first] = memory.bytes() - first;
}

void* SharedResource::do_allocate(std::int64_t bytes, Category category, StreamRef) {
  const std::int64_t length = align_up(std::max<std::int64_t>(bytes, 1), page_bytes());
  const std::scoped_lock lock(mutex_);
  for (auto hole = holes_.begin(); hole != holes_.end(); ++hole) {
    const auto [offset, room] = *hole;
    if (room < length) continue;
    holes_.erase(hole);
    if (room > length) holes_[offset + length] = room - length;
    memory_.prefer_huge_pages(offset, length);
    return memory_.data() + offset;
  }
  throw OutOfMemory(fmt::format("{} of {} do not fit into the shared window of {}",
                                format_bytes(bytes), name_of(category),
                                format_bytes(memory_.bytes())));
}

void SharedResource::do_deallocate(void* pointer, std::int64_t bytes, Category,
                                   StreamRef) noexcept {
  std::int64_t length = align_up(std::max<std::int64_t>(bytes, 1), page_bytes());
  std::int64_t offset = static_cast<std::byte*>(pointer) - memory_.data();
  ::madvise(pointer, static_cast<std::size_t>(length), MADV_REMOVE);
  const std::scoped_lock lock(mutex_);
  auto next = holes_.lower_bound(offset);
  if (next != holes_.end() && offset + length == next->first) {
    length += next->second;
    next = holes_.erase(next);
  }
  if (next != holes_.begin())
    if (const auto before = std::prev(next); before->first + before->second == offset) {
      before->second += length;
      return;
    }
  holes_[offset] = length;
}

}  // namespace detail

}  // namespace ashlar
