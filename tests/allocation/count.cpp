#include "allocation/count.hpp"

#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdlib>

extern "C" {
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void* __libc_memalign(std::size_t, std::size_t);
}

namespace counted {

thread_local bool on = false;
std::atomic<bool> everywhere = false;
bool maps = true;
thread_local std::int64_t count = 0, bytes = 0;
std::size_t ignored_below = 0;

namespace {

std::atomic<std::int64_t> all = 0;

void note(std::size_t size) {
  if (size < ignored_below) return;
  if (everywhere) ++all;
  if (!on) return;
  ++count;
  bytes += static_cast<std::int64_t>(size);
}

}  // namespace

std::int64_t total() { return all; }

}  // namespace counted

using counted::note;

extern "C" {
void* malloc(std::size_t size) {
  note(size);
  return __libc_malloc(size);
}
void* calloc(std::size_t n, std::size_t size) {
  note(n * size);
  return __libc_calloc(n, size);
}
void* realloc(void* old, std::size_t size) {
  note(size);
  return __libc_realloc(old, size);
}
void* aligned_alloc(std::size_t alignment, std::size_t size) {
  note(size);
  return __libc_memalign(alignment, size);
}
int posix_memalign(void** result, std::size_t alignment, std::size_t size) {
  note(size);
  *result = __libc_memalign(alignment, size);
  return *result == nullptr ? 12 : 0;
}
void* mmap(void* address, std::size_t size, int protection, int flags, int file, off_t offset) {
  if (counted::maps) note(size);
  return reinterpret_cast<void*>(syscall(SYS_mmap, address, size, protection, flags, file, offset));
}
}
