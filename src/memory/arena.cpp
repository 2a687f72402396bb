// ArenaResource: one block, served front to back.
#include <fmt/format.h>

#include <algorithm>

#include "ashlar/memory_resource.hpp"
#include "memory/out_of_memory.hpp"

namespace ashlar {
namespace {

std::int64_t slot_bytes(std::int64_t bytes) { return align_up(std::max<std::int64_t>(bytes, 1)); }

}  // namespace

ArenaResource::ArenaResource(MemoryResource& upstream, std::int64_t bytes, Category category)
    : upstream_(upstream),
      bytes_(bytes),
      category_(category),
      base_(static_cast<std::byte*>(upstream.allocate(bytes, category))) {}

ArenaResource::~ArenaResource() { upstream_.deallocate(base_, bytes_, category_); }

std::int64_t ArenaResource::used() const {
  const std::scoped_lock lock(mutex_);
  return used_;
}

void* ArenaResource::do_allocate(std::int64_t bytes, Category category, StreamRef) {
  detail::check_request(bytes, category);
  const std::scoped_lock lock(mutex_);
  if (bytes > bytes_ - used_ || slot_bytes(bytes) > bytes_ - used_)
    detail::throw_out_of_memory(
        bytes, category,
        fmt::format("{} of an arena of {} are used, held by {}", format_bytes(used_),
                    format_bytes(bytes_), describe(held_)),
        "make the arena larger");
  std::byte* pointer = base_ + used_;
  used_ += slot_bytes(bytes);
  ++live_;
  held_[static_cast<std::size_t>(category)] += bytes;
  return pointer;
}

void ArenaResource::do_deallocate(void* pointer, std::int64_t bytes, Category category,
                                  StreamRef stream) noexcept {
  auto* begin = static_cast<std::byte*>(pointer);
  if (stream.is_inline())
    release(begin, bytes, category);
  else
    stream.enqueue([this, begin, bytes, category] { release(begin, bytes, category); });
}

void ArenaResource::release(std::byte* pointer, std::int64_t bytes, Category category) noexcept {
  const std::scoped_lock lock(mutex_);
  held_[static_cast<std::size_t>(category)] -= bytes;
  if (--live_ == 0)
    used_ = 0;
  else if (pointer + slot_bytes(bytes) == base_ + used_)
    used_ = pointer - base_;
}

}  // namespace ashlar
