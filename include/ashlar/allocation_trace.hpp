// Allocation traces: recorded from a running program, read from RMM's log or our own, replayed on
// any resource, drawn as a timeline.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <istream>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "ashlar/caching_resource.hpp"
#include "ashlar/memory_resource.hpp"

namespace ashlar {

struct TraceOperation {
  bool allocate = false;
  Category category = Category::workspace;
  std::uint32_t block = 0;  // the n-th allocation of the trace
  std::uint32_t name = 0;   // in Trace::names
  std::uint64_t stream = 0;
  std::int64_t bytes = 0;
  std::int64_t line = 0;  // in the file, from 1; 0 when made by a generator
};

/// Operations in the order in which the program made them. Every free is of a live block and names
/// its size; blocks may stay live at the end.
struct Trace {
  std::vector<TraceOperation> operations;
  std::uint32_t blocks = 0;
  std::vector<std::string> names{""};

  /// @return the new block. @throws nothing but std::bad_alloc.
  std::uint32_t allocate(std::int64_t bytes, Category category, std::uint64_t stream,
                         std::uint32_t name = 0);
  /// Frees what operation `allocated` of this trace allocated.
  void free(const TraceOperation& allocated, std::uint64_t stream);
  std::int64_t peak_live_bytes() const;
};

/// Reads CSV with the columns Thread, Time, Action, Pointer, Size, Stream (RMM's log) and, if
/// present, Category and Name (ours), in any order. Actions: allocate, free, and allocate failure,
/// which is skipped. @param name for messages.
/// @throws InvalidArgument "name:line: ..." for a malformed line, a block freed twice or never
/// allocated or of another size, an address allocated twice, more than 2^62 bytes live.
Trace read_trace(std::istream& input, std::string_view name);
Trace read_trace(const std::filesystem::path& path);

struct ReplayOptions {
  /// What a stream of the trace is on the resource's device; streams of the host by default.
  std::function<StreamRef(std::uint64_t stream)> stream;
  /// Called after each operation; a simulated device makes progress here.
  std::function<void()> after_operation;
};

struct ReplayReport {
  std::int64_t operations = 0;
  std::int64_t failures = 0;         // allocations that ran out of memory; their frees are skipped
  std::int64_t peak_live_bytes = 0;  // of what was allocated
  double nanoseconds = 0;
  std::int64_t failing_line = 0;  // of the first failure
  std::string failure;            // its message
};

/// Repeats a trace and frees at the end what it left. Contents are not touched.
ReplayReport replay(const Trace& trace, MemoryResource& resource,
                    const ReplayOptions& options = {});

/// Addresses without memory, with events that happen `run_ahead` operations after they are
/// recorded: a program that is that far ahead of its device. Replays need no device and no bytes.
class SimulatedPages final : public PageSource {
 public:
  explicit SimulatedPages(std::int64_t capacity = INT64_MAX, std::int64_t run_ahead = 0,
                          std::int64_t page_bytes = std::int64_t{2} << 20)
      : capacity_(capacity), run_ahead_(run_ahead), page_bytes_(page_bytes) {}

  /// A stream of this device; it runs nothing.
  static StreamRef stream(std::uint64_t number);
  /// One operation of the program has passed.
  void tick() { ++now_; }
  /// For replay: streams and ticks of this device.
  ReplayOptions replay_options();

  std::int64_t page_bytes() const override { return page_bytes_; }
  std::byte* reserve(std::int64_t bytes) override;
  void release(std::byte*, std::int64_t) noexcept override {}
  bool map(std::byte* begin, std::int64_t bytes) override;
  void unmap(std::byte*, std::int64_t bytes) noexcept override { mapped_ -= bytes; }
  EventId record(StreamRef) override { return static_cast<EventId>(now_ + run_ahead_); }
  bool done(EventId event) noexcept override { return static_cast<EventId>(now_) >= event; }
  void order(StreamRef, EventId) override {}
  void wait(EventId event) noexcept override;
  void forget(EventId) noexcept override {}

 private:
  std::int64_t capacity_, run_ahead_, page_bytes_;
  std::int64_t mapped_ = 0, now_ = 0;
  std::int64_t next_address_ = std::int64_t{1} << 40;
};

/// A file that read_trace reads, line by line as operations happen. From any thread.
class TraceWriter {
 public:
  /// @throws InvalidArgument naming the file.
  explicit TraceWriter(const std::filesystem::path& path);
  TraceWriter(const TraceWriter&) = delete;
  TraceWriter& operator=(const TraceWriter&) = delete;

  /// @param action allocate, free or allocate failure
  /// @param name without commas, or they become spaces
  void write(std::string_view action, const void* pointer, std::int64_t bytes, Category category,
             std::uint64_t stream, std::string_view name);
  /// Writes all out; nothing is recorded afterwards. @throws InvalidArgument when the disk is full.
  void close();

 private:
  std::filesystem::path path_;
  std::mutex mutex_;
  std::ofstream file_;
  std::map<std::thread::id, int> threads_;
  std::int64_t begin_;
};

/// Writes each operation to a file that read_trace reads, and passes it on.
class TraceAdaptor final : public MemoryResource {
 public:
  /// @throws InvalidArgument naming the file.
  TraceAdaptor(MemoryResource& upstream, const std::filesystem::path& path);
  TraceAdaptor(const TraceAdaptor&) = delete;
  TraceAdaptor& operator=(const TraceAdaptor&) = delete;

  /// The name of what is allocated from now on, by any thread; empty for none.
  void set_name(std::string_view name);
  /// Writes all out; nothing is recorded afterwards. @throws InvalidArgument when the disk is full.
  void close() { writer_.close(); }

 private:
  void* do_allocate(std::int64_t bytes, Category category, StreamRef stream) override;
  void do_deallocate(void* pointer, std::int64_t bytes, Category category,
                     StreamRef stream) noexcept override;
  void write(std::string_view action, const void* pointer, std::int64_t bytes, Category category,
             StreamRef stream);

  MemoryResource& upstream_;
  TraceWriter writer_;
  std::mutex mutex_;
  std::string name_;
  std::map<const void*, std::uint64_t> streams_;
};

/// Synthetic traces, the same for the same arguments.
struct FsdpTrace {
  int layers = 24, steps = 6, ranks = 8;
  std::int64_t width = 2048, tokens = 4096;
};
/// Fully sharded training on two streams: 1 gathers and reduces one layer ahead, 0 computes and
/// frees what was gathered; activations, whole gradients in flight, shards that stay.
Trace fsdp_trace(const FsdpTrace& shape = {});
/// One stream; each step has another sequence length, and with it other sizes.
Trace variable_lengths_trace(unsigned seed, int steps = 40);
/// Two streams; sizes from 512 B to 64 MiB, log-uniform, freed in random order.
Trace random_sizes_trace(unsigned seed, int operations = 20'000);
/// One stream; each step as the one before.
Trace steady_step_trace(int steps = 10);

/// What a page of a timeline says beside it, as HTML.
struct TimelinePage {
  std::string title = "Memory over operations";
  std::string above;  // between title and timeline
};
/// A self-contained page: live bytes by category over the operations of a trace, names under the
/// pointer, light and dark. @throws InvalidArgument naming the file.
void write_timeline(const Trace& trace, const std::filesystem::path& path,
                    const TimelinePage& page = {});

}  // namespace ashlar
