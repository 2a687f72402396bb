// malloc, its relatives and mmap of the whole test program, counted where it is switched on.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>

namespace counted {

extern thread_local bool on;          // this thread's calls count
extern std::atomic<bool> everywhere;  // all threads' do, and in `total` only
/// OpenBLAS maps a buffer when more threads than before multiply at the same instant.
extern bool maps;
extern thread_local std::int64_t count, bytes;
/// What code of a shared library asks for itself does not count (empty: all does). Set before the
/// threads that it is for start.
void ignore_calls_of(std::string library);
std::int64_t total();

}  // namespace counted
