// Traces repeated on a resource, and the device that replays need: addresses and a clock.
#include <algorithm>
#include <chrono>
#include <map>

#include "ashlar/allocation_trace.hpp"
#include "ashlar/error.hpp"

namespace ashlar {

std::uint32_t Trace::allocate(std::int64_t bytes, Category category, std::uint64_t stream,
                              std::uint32_t name) {
  operations.push_back({true, category, blocks, name, stream, bytes, 0});
  return blocks++;
}

void Trace::free(const TraceOperation& allocated, std::uint64_t stream) {
  TraceOperation operation = allocated;
  operation.allocate = false;
  operation.stream = stream;
  operations.push_back(operation);
}

std::int64_t Trace::peak_live_bytes() const {
  std::int64_t live = 0;
  std::int64_t peak = 0;
  for (const TraceOperation& operation : operations) {
    live += operation.allocate ? operation.bytes : -operation.bytes;
    peak = std::max(peak, live);
  }
  return peak;
}

namespace {

struct Placed {
  void* pointer = nullptr;
  std::int64_t bytes = 0;
  Category category = Category::workspace;
  StreamRef stream;
};

/// The stream of each operation, looked up before the clock starts.
std::vector<StreamRef> streams_of(const Trace& trace, const ReplayOptions& options,
                                  std::map<std::uint64_t, Stream>& host) {
  std::map<std::uint64_t, StreamRef> known{{0, StreamRef()}};
  if (options.stream) known[0] = options.stream(0);
  std::vector<StreamRef> streams;
  streams.reserve(trace.operations.size());
  for (const TraceOperation& operation : trace.operations) {
    auto found = known.find(operation.stream);
    if (found == known.end())
      found = known
                  .emplace(operation.stream, options.stream ? options.stream(operation.stream)
                                                            : StreamRef(host[operation.stream]))
                  .first;
    streams.push_back(found->second);
  }
  return streams;
}

}  // namespace

ReplayReport replay(const Trace& trace, MemoryResource& resource, const ReplayOptions& options) {
  std::map<std::uint64_t, Stream> host;
  const std::vector<StreamRef> streams = streams_of(trace, options, host);
  std::vector<Placed> placed(trace.blocks);
  ReplayReport report;
  std::int64_t live = 0;
  const auto begin = std::chrono::steady_clock::now();
  for (std::size_t i = 0; i < trace.operations.size(); ++i) {
    const TraceOperation& operation = trace.operations[i];
    Placed& block = placed[operation.block];
    if (operation.allocate) {
      try {
        block = {resource.allocate(operation.bytes, operation.category, streams[i]),
                 operation.bytes, operation.category, streams[i]};
        live += operation.bytes;
        report.peak_live_bytes = std::max(report.peak_live_bytes, live);
      } catch (const OutOfMemory& error) {
        if (report.failures++ == 0) {
          report.failing_line = operation.line;
          report.failure = error.what();
        }
      }
    } else if (block.pointer != nullptr) {
      resource.deallocate(block.pointer, block.bytes, block.category, streams[i]);
      block.pointer = nullptr;
      live -= operation.bytes;
    }
    if (options.after_operation) options.after_operation();
  }
  report.nanoseconds =
      std::chrono::duration<double, std::nano>(std::chrono::steady_clock::now() - begin).count();
  report.operations = std::ssize(trace.operations);
  for (const Placed& block : placed)
    if (block.pointer != nullptr)
      resource.deallocate(block.pointer, block.bytes, block.category, block.stream);
  for (const auto& [number, stream] : host) {
    StreamRef(stream).synchronize();
    if (auto* caching = dynamic_cast<CachingResource*>(&resource)) caching->retire(stream);
  }
  return report;
}

StreamRef SimulatedPages::stream(std::uint64_t number) {
  return StreamRef(reinterpret_cast<detail::StreamState*>(number + 1));
}

ReplayOptions SimulatedPages::replay_options() {
  return {[](std::uint64_t number) { return stream(number); }, [this] { tick(); }};
}

std::byte* SimulatedPages::reserve(std::int64_t bytes) {
  if (bytes > (std::int64_t{1} << 62) - next_address_) return nullptr;
  auto* begin = reinterpret_cast<std::byte*>(next_address_);
  next_address_ += bytes;
  return begin;
}

bool SimulatedPages::map(std::byte*, std::int64_t bytes) {
  if (bytes > capacity_ - mapped_) return false;
  mapped_ += bytes;
  return true;
}

void SimulatedPages::wait(EventId event) noexcept {
  now_ = std::max(now_, static_cast<std::int64_t>(event));
}

}  // namespace ashlar
