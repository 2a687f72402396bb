#include "allocation/count.hpp"

#include <link.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>

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

namespace {

std::atomic<std::int64_t> all = 0;
std::uintptr_t ignored_begin = 0, ignored_end = 0;

/// @param caller where the call returns to
void note(std::size_t size, void* caller) {
  const auto address = reinterpret_cast<std::uintptr_t>(caller);
  if (address >= ignored_begin && address < ignored_end) return;
  if (everywhere) ++all;
  if (!on) return;
  ++count;
  bytes += static_cast<std::int64_t>(size);
}

int find_library(dl_phdr_info* library, std::size_t, void* name) {
  if (std::strstr(library->dlpi_name, static_cast<const char*>(name)) == nullptr) return 0;
  ignored_begin = library->dlpi_addr;
  for (int i = 0; i < library->dlpi_phnum; ++i) {
    const auto& segment = library->dlpi_phdr[i];
    if (segment.p_type == PT_LOAD)
      ignored_end = std::max(ignored_end, ignored_begin + segment.p_vaddr + segment.p_memsz);
  }
  return 1;
}

}  // namespace

std::int64_t total() { return all; }

void ignore_calls_of(std::string library) {
  ignored_begin = ignored_end = 0;
  if (!library.empty()) dl_iterate_phdr(find_library, library.data());
}

}  // namespace counted

using counted::note;

extern "C" {
void* malloc(std::size_t size) {
  note(size, __builtin_return_address(0));
  return __libc_malloc(size);
}
void* calloc(std::size_t n, std::size_t size) {
  note(n * size, __builtin_return_address(0));
  return __libc_calloc(n, size);
}
void* realloc(void* old, std::size_t size) {
  note(size, __builtin_return_address(0));
  return __libc_realloc(old, size);
}
void* aligned_alloc(std::size_t alignment, std::size_t size) {
  note(size, __builtin_return_address(0));
  return __libc_memalign(alignment, size);
}
int posix_memalign(void** result, std::size_t alignment, std::size_t size) {
  note(size, __builtin_return_address(0));
  *result = __libc_memalign(alignment, size);
  return *result == nullptr ? 12 : 0;
}
void* mmap(void* address, std::size_t size, int protection, int flags, int file, off_t offset) {
  if (counted::maps) note(size, __builtin_return_address(0));
  return reinterpret_cast<void*>(syscall(SYS_mmap, address, size, protection, flags, file, offset));
}
}

// So that a library's own calls return into it.
void* operator new(std::size_t size) {
  note(size, __builtin_return_address(0));
  if (void* const memory = __libc_malloc(size)) return memory;
  throw std::bad_alloc();
}
void* operator new[](std::size_t size) {
  note(size, __builtin_return_address(0));
  if (void* const memory = __libc_malloc(size)) return memory;
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::size_t) noexcept { std::free(memory); }
