#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "ashlar/allocation_trace.hpp"
#include "ashlar/error.hpp"

namespace ashlar {
namespace {

std::int64_t microseconds() {
  return std::chrono::duration_cast<std::chrono::microseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

}  // namespace

TraceWriter::TraceWriter(const std::filesystem::path& path)
    : path_(path), file_(path), begin_(microseconds()) {
  file_ << "Thread,Time,Action,Pointer,Size,Stream,Category,Name\n" << std::flush;
  if (!file_) throw InvalidArgument(fmt::format("{}: cannot be written", path.string()));
}

void TraceWriter::write(std::string_view action, const void* pointer, std::int64_t bytes,
                        Category category, std::uint64_t stream, std::string_view name) {
  const std::scoped_lock lock(mutex_);
  if (!file_.is_open()) return;
  std::string plain(name);
  std::ranges::replace_if(
      plain, [](char c) { return c == ',' || c == '\n' || c == '\r'; }, ' ');
  const int thread =
      threads_.emplace(std::this_thread::get_id(), static_cast<int>(threads_.size())).first->second;
  file_ << fmt::format("{},{},{},{},{},{},{},{}\n", thread, microseconds() - begin_, action,
                       fmt::ptr(pointer), bytes, stream, name_of(category), plain);
}

void TraceWriter::close() {
  const std::scoped_lock lock(mutex_);
  if (!file_.is_open()) return;
  file_.close();
  if (!file_)
    throw InvalidArgument(
        fmt::format("{}: the trace could not be written out (disk full?)", path_.string()));
}

TraceAdaptor::TraceAdaptor(MemoryResource& upstream, const std::filesystem::path& path)
    : upstream_(upstream), writer_(path), streams_{{nullptr, 0}} {}

void TraceAdaptor::set_name(std::string_view name) {
  const std::scoped_lock lock(mutex_);
  name_ = name;
}

void TraceAdaptor::write(std::string_view action, const void* pointer, std::int64_t bytes,
                         Category category, StreamRef stream) {
  const auto number = streams_.emplace(stream.id(), streams_.size()).first->second;
  writer_.write(action, pointer, bytes, category, number, name_);
}

void* TraceAdaptor::do_allocate(std::int64_t bytes, Category category, StreamRef stream) {
  // One lock around both, so that lines have the order of the calls.
  const std::scoped_lock lock(mutex_);
  try {
    void* pointer = upstream_.allocate(bytes, category, stream);
    write("allocate", pointer, bytes, category, stream);
    return pointer;
  } catch (const OutOfMemory&) {
    write("allocate failure", nullptr, bytes, category, stream);
    throw;
  }
}

void TraceAdaptor::do_deallocate(void* pointer, std::int64_t bytes, Category category,
                                 StreamRef stream) noexcept {
  const std::scoped_lock lock(mutex_);
  write("free", pointer, bytes, category, stream);
  upstream_.deallocate(pointer, bytes, category, stream);
}

}  // namespace ashlar
