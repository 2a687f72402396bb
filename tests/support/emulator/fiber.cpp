#include "emulator/fiber.hpp"

#include <sys/mman.h>

#include <new>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

namespace emulator {
namespace context = boost::context::detail;

Stacks::Stacks(std::size_t count) : bytes_(count * kBytes) {
  void* raw = ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (raw == MAP_FAILED) throw std::bad_alloc();
  begin_ = static_cast<std::byte*>(raw);
}

Stacks::~Stacks() {
#ifdef __SANITIZE_ADDRESS__
  ASAN_UNPOISON_MEMORY_REGION(begin_, bytes_);
#endif
  ::munmap(begin_, bytes_);
}

void Fiber::start(std::span<std::byte> stack, Body body, void* argument) {
  stack_ = stack;
  body_ = body;
  argument_ = argument;
  self_ = context::make_fcontext(stack.data() + stack.size(), stack.size(), enter);
}

void Fiber::enter(context::transfer_t transfer) {
  auto* self = static_cast<Fiber*>(transfer.data);
  self->caller_ = transfer.fctx;
  detail::arrive(nullptr, &self->caller_stack_, &self->caller_bytes_);
  self->body_(self->argument_);
  self->abandon();
}

void Fiber::abandon() {
  detail::announce(nullptr, caller_stack_, caller_bytes_);
  context::jump_fcontext(caller_, nullptr);
  __builtin_unreachable();
}

}  // namespace emulator
