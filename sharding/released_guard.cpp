#include "sharding/released_guard.hpp"

#include <fmt/format.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <mutex>

#include "ashlar/error.hpp"

namespace ashlar {
namespace {

using Block = ReleasedGuard::Block;

/// What the handler looks through: blocks freed lately, of all guards.
struct Freed {
  std::mutex mutex;  // of writers
  std::array<Block, ReleasedGuard::kQuarantined> blocks;
  std::size_t next = 0;
  struct sigaction previous = {};
};

Freed& freed() {
  static Freed all;
  return all;
}

std::int64_t whole_pages(std::int64_t bytes) {
  return align_up(std::max<std::int64_t>(bytes, 1), ::sysconf(_SC_PAGESIZE));
}

void say(std::string_view text) {
  [[maybe_unused]] const auto written = ::write(STDERR_FILENO, text.data(), text.size());
}

std::string_view parameter_at(const Block& block, const std::byte* address) {
  const std::int64_t element = (address - block.begin) / size_of(block.flat->dtype);
  for (const Flat::Entry& entry : block.flat->entries) {
    if (element < entry.end)
      return block.layout->parameters()[static_cast<std::size_t>(entry.parameter)].name;
  }
  return "";
}

/// Calls nothing that a signal may not interrupt.
void on_fault(int signal, siginfo_t* info, void*) {
  const auto* const address = static_cast<const std::byte*>(info->si_addr);
  for (const Block& block : freed().blocks) {
    if (block.flat == nullptr || address < block.begin || address >= block.begin + block.bytes)
      continue;
    say("ashlar: parameter '");
    say(parameter_at(block, address));
    say("' was touched after the lease of its unit '");
    say(block.layout->units()[static_cast<std::size_t>(block.flat->unit)]);
    say("' had ended: gather the unit where its parameters are used\n");
  }
  ::sigaction(signal, &freed().previous, nullptr);  // and the access is tried again
  if (info->si_code <= 0) ::raise(signal);          // sent by somebody: there was none
}

void install_handler() {
  static std::once_flag once;
  std::call_once(once, [] {
    struct sigaction action = {};
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO;
    ::sigaction(SIGSEGV, &action, &freed().previous);
  });
}

}  // namespace

ReleasedGuard::ReleasedGuard() { install_handler(); }

ReleasedGuard::~ReleasedGuard() {
  const std::scoped_lock lock(freed().mutex);
  for (const Block& block : freed_) {
    for (Block& listed : freed().blocks)
      if (listed.begin == block.begin) listed = {};
    ::munmap(block.begin, static_cast<std::size_t>(block.bytes));
  }
}

void ReleasedGuard::describe(const std::byte* begin, const FlatLayout& layout, const Flat& flat) {
  const auto block = std::ranges::find(live_, begin, &Block::begin);
  block->layout = &layout;
  block->flat = &flat;
}

void* ReleasedGuard::do_allocate(std::int64_t bytes, Category, StreamRef) {
  const std::int64_t length = whole_pages(bytes);
  void* const memory = ::mmap(nullptr, static_cast<std::size_t>(length), PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED)
    throw OutOfMemory(
        fmt::format("guarded pages: {} for {}", std::strerror(errno), format_bytes(bytes)));
  live_.push_back({static_cast<std::byte*>(memory), length});
  held_ += length;
  peak_ = std::max(peak_, held_);
  return memory;
}

void ReleasedGuard::do_deallocate(void* pointer, std::int64_t, Category, StreamRef) noexcept {
  const auto found = std::ranges::find(live_, static_cast<std::byte*>(pointer), &Block::begin);
  const Block block = *found;
  live_.erase(found);
  held_ -= block.bytes;
  const auto length = static_cast<std::size_t>(block.bytes);
  ::madvise(block.begin, length, MADV_DONTNEED);
  ::mprotect(block.begin, length, PROT_NONE);
  freed_.push_back(block);
  const std::scoped_lock lock(freed().mutex);
  freed().blocks[freed().next++ % kQuarantined] = block;
  if (freed_.size() <= kQuarantined) return;
  ::munmap(freed_.front().begin, static_cast<std::size_t>(freed_.front().bytes));
  freed_.pop_front();
}

}  // namespace ashlar
