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

template <typename Key>
int number_of(std::map<Key, int>& numbers, const Key& key) {
  return numbers.emplace(key, static_cast<int>(numbers.size())).first->second;
}

}  // namespace

TraceAdaptor::TraceAdaptor(MemoryResource& upstream, const std::filesystem::path& path)
    : upstream_(upstream),
      path_(path),
      file_(path),
      streams_{{nullptr, 0}},
      begin_(microseconds()) {
  file_ << "Thread,Time,Action,Pointer,Size,Stream,Category,Name\n" << std::flush;
  if (!file_) throw InvalidArgument(fmt::format("{}: cannot be written", path.string()));
}

TraceAdaptor::~TraceAdaptor() = default;

void TraceAdaptor::set_name(std::string_view name) {
  const std::scoped_lock lock(mutex_);
  name_ = name;
  for (char& c : name_)
    if (c == ',' || c == '\n' || c == '\r') c = ' ';
}

void TraceAdaptor::close() {
  const std::scoped_lock lock(mutex_);
  if (!file_.is_open()) return;
  file_.close();
  if (!file_)
    throw InvalidArgument(
        fmt::format("{}: the trace could not be written out (disk full?)", path_.string()));
}

void TraceAdaptor::write(std::string_view action, const void* pointer, std::int64_t bytes,
                         Category category, StreamRef stream) {
  if (!file_.is_open()) return;
  file_ << fmt::format("{},{},{},{},{},{},{},{}\n", number_of(threads_, std::this_thread::get_id()),
                       microseconds() - begin_, action, fmt::ptr(pointer), bytes,
                       number_of(streams_, stream.id()), name_of(category), name_);
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
