// The caching allocator against malloc and mimalloc (left out, with a word, where its library is
// missing) in interleaved rounds, and replays of traces. Prints one JSON object. Flags: --rounds R
// (15), --pairs N (200000), --trace FILE (more traces to replay), --device cuda (its memory and
// streams, the caching allocator alone, replays without a simulated device). Medians, and the
// fastest round for machines that do other work as well.
#include <dlfcn.h>
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <barrier>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "ashlar/allocation_trace.hpp"
#include "ashlar/caching_resource.hpp"
#include "ashlar/device_memory.hpp"
#include "ashlar/run_main.hpp"
#include "hardware.hpp"
#include "timing.hpp"

namespace {

using ashlar::perf::Clock, ashlar::perf::median, ashlar::perf::seconds_since;
using nlohmann::ordered_json;

/// Memory as a benchmark sees it: the stream says which thread asks.
struct Allocator {
  std::string name;
  std::function<void*(std::int64_t bytes, ashlar::StreamRef stream)> allocate;
  std::function<void(void* pointer, std::int64_t bytes, ashlar::StreamRef stream)> free;
};

struct Pattern {
  std::string name;
  std::vector<std::int64_t> sizes;
  std::size_t held = 1;  // blocks live at a time; freed in random order
};

std::vector<Pattern> patterns() {
  std::mt19937 random(1);
  Pattern mixed{"mixed, 256 live", {}, 256};
  for (int i = 0; i < 1024; ++i)
    mixed.sizes.push_back(std::int64_t{256} << random() % 15 |
                          static_cast<std::int64_t>(random() % 256));
  return {{"256 B", {256}, 1}, {"64 KiB", {65'536}, 1}, {"4 MiB", {4 << 20}, 1}, mixed};
}

/// One thread's allocate/free pairs after a warm-up. `ready` is called between the two.
void run_pairs(const Allocator& allocator, const Pattern& pattern, int pairs,
               ashlar::StreamRef stream, const std::function<void()>& ready,
               const std::function<void()>& done) {
  struct Slot {
    void* pointer = nullptr;
    std::int64_t bytes = 0;
  };
  std::vector<Slot> slots(pattern.held);
  std::mt19937 random(7);
  std::vector<std::uint32_t> order(4096);
  for (std::uint32_t& place : order) place = static_cast<std::uint32_t>(random() % pattern.held);
  const auto run = [&](int count) {
    for (int i = 0; i < count; ++i) {
      Slot& slot = slots[order[static_cast<std::size_t>(i) % order.size()]];
      if (slot.pointer != nullptr) allocator.free(slot.pointer, slot.bytes, stream);
      slot.bytes = pattern.sizes[static_cast<std::size_t>(i) % pattern.sizes.size()];
      slot.pointer = allocator.allocate(slot.bytes, stream);
    }
  };
  run(8192);
  ready();
  run(pairs);
  done();
  for (const Slot& slot : slots)
    if (slot.pointer != nullptr) allocator.free(slot.pointer, slot.bytes, stream);
}

/// Nanoseconds from the moment that all threads are warm until the last one is done, per pair of
/// one thread. Each has a stream of its own.
double time_threads(const Allocator& allocator, const Pattern& pattern, int pairs,
                    std::span<const ashlar::Stream> streams) {
  Clock::time_point begin;
  const auto size = static_cast<std::ptrdiff_t>(streams.size());
  std::barrier warm(size, [&]() noexcept { begin = Clock::now(); });
  double nanoseconds = 0;
  std::barrier finished(size, [&]() noexcept { nanoseconds = 1e9 * seconds_since(begin); });
  const auto work = [&](const ashlar::Stream& stream) {
    run_pairs(
        allocator, pattern, pairs, stream, [&] { warm.arrive_and_wait(); },
        [&] { finished.arrive_and_wait(); });
  };
  std::vector<std::thread> others;
  for (const ashlar::Stream& stream : streams.subspan(1))
    others.emplace_back(work, std::cref(stream));
  work(streams[0]);
  for (std::thread& thread : others) thread.join();
  return nanoseconds / pairs;
}

Allocator system_malloc() {
  return {"malloc",
          [](std::int64_t bytes, ashlar::StreamRef) {
            void* volatile pointer = std::malloc(static_cast<std::size_t>(bytes));
            return pointer;
          },
          [](void* pointer, std::int64_t, ashlar::StreamRef) { std::free(pointer); }};
}

/// Loaded, not linked: linking it would replace malloc as well.
bool add_mimalloc(std::vector<Allocator>& allocators) {
  void* library = ::dlopen("libmimalloc.so.2", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) library = ::dlopen("libmimalloc.so.2.0", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return false;
  auto* allocate = reinterpret_cast<void* (*)(std::size_t)>(::dlsym(library, "mi_malloc"));
  auto* free = reinterpret_cast<void (*)(void*)>(::dlsym(library, "mi_free"));
  if (allocate == nullptr || free == nullptr) return false;
  allocators.push_back({"mimalloc",
                        [=](std::int64_t bytes, ashlar::StreamRef) {
                          return allocate(static_cast<std::size_t>(bytes));
                        },
                        [=](void* pointer, std::int64_t, ashlar::StreamRef) { free(pointer); }});
  return true;
}

std::unique_ptr<ashlar::PageSource> pages_of(ashlar::Device device) {
  return device.type == ashlar::DeviceType::cpu ? ashlar::host_pages()
                                                : ashlar::device_pages(device);
}

std::vector<ashlar::Stream> streams_on(ashlar::Device device, int count) {
  std::vector<ashlar::Stream> streams;
  for (int i = 0; i < count; ++i) streams.emplace_back(device);
  return streams;
}

ordered_json measure_pairs(ashlar::Device device, int rounds, int pairs) {
  const auto pages = pages_of(device);
  ashlar::CachingResource caching(*pages);
  constexpr auto kCategory = ashlar::Category::activation;
  std::vector<Allocator> allocators{
      {"caching",
       [&](std::int64_t bytes, ashlar::StreamRef stream) {
         return caching.allocate(bytes, kCategory, stream);
       },
       [&](void* pointer, std::int64_t bytes, ashlar::StreamRef stream) {
         caching.deallocate(pointer, bytes, kCategory, stream);
       }}};
  if (device.type == ashlar::DeviceType::cpu) {
    allocators.push_back(system_malloc());
    if (!add_mimalloc(allocators)) fmt::print(stderr, "mimalloc is not installed: left out\n");
  }

  ordered_json results = ordered_json::array();
  for (const int threads : {1, 2})
    for (const Pattern& pattern : patterns()) {
      // Of all rounds: a new stream finds no memory of its own, and the first rounds map pages: two
      // threads that do not wait for each other meet new peaks of live bytes for a while.
      const std::vector<ashlar::Stream> streams = streams_on(device, threads);
      std::vector<std::vector<double>> times(allocators.size());
      std::int64_t source_calls = 0;
      for (int round = -3; round < rounds; ++round) {
        for (std::size_t a = 0; a < allocators.size(); ++a) {
          const double spent = time_threads(allocators[a], pattern, pairs, streams);
          if (round >= 0) times[a].push_back(spent);
        }
        if (round == -1) source_calls = caching.statistics().source_calls;
      }
      for (const ashlar::Stream& stream : streams) caching.retire(stream);
      ordered_json row{{"threads", threads}, {"sizes", pattern.name}};
      for (std::size_t a = 0; a < allocators.size(); ++a) {
        row[allocators[a].name + "_ns_per_pair"] = std::round(median(times[a]) * 10) / 10;
        row[allocators[a].name + "_fastest"] = std::round(std::ranges::min(times[a]) * 10) / 10;
      }
      row["source_calls_after_warm_up"] = caching.statistics().source_calls - source_calls;
      results.push_back(row);
    }
  return results;
}

/// What traces are replayed on: a GPU, else a simulated device.
struct ReplayDevice {
  explicit ReplayDevice(ashlar::Device device) {
    if (device.type == ashlar::DeviceType::cpu) {
      auto simulated = std::make_unique<ashlar::SimulatedPages>(INT64_MAX, kRunAhead);
      options = simulated->replay_options();
      pages = std::move(simulated);
    } else {
      pages = ashlar::device_pages(device);
      options.stream = [this, device](std::uint64_t number) -> ashlar::StreamRef {
        return streams.try_emplace(number, device).first->second;
      };
    }
  }
  static constexpr int kRunAhead = 300;  // operations
  std::map<std::uint64_t, ashlar::Stream> streams;
  std::unique_ptr<ashlar::PageSource> pages;
  ashlar::ReplayOptions options;
};

ordered_json measure_replay(const std::string& name, const ashlar::Trace& trace, bool order_streams,
                            ashlar::Device where, int rounds) {
  ordered_json row;
  std::vector<double> times;
  for (int round = 0; round < rounds; ++round) {
    ReplayDevice device(where);
    ashlar::CachingOptions options;
    options.order_streams = order_streams;
    ashlar::CachingResource caching(*device.pages, options);
    const ashlar::ReplayReport report = ashlar::replay(trace, caching, device.options);
    const ashlar::CachingStatistics statistics = caching.statistics();
    times.push_back(report.nanoseconds / static_cast<double>(report.operations));
    row = {{"trace", name},
           {"order_streams", order_streams},
           {"operations", report.operations},
           {"peak_live_bytes", report.peak_live_bytes},
           {"peak_reserved_bytes", statistics.peak_reserved_bytes},
           {"reserved_over_live", static_cast<double>(statistics.peak_reserved_bytes) /
                                      static_cast<double>(report.peak_live_bytes)},
           {"source_calls", statistics.source_calls},
           {"orderings", statistics.orderings}};
  }
  row["ns_per_operation"] = median(times);
  return row;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("The caching allocator against malloc and mimalloc, and replays of traces");
  int rounds = 15;
  int pairs = 200'000;
  std::string device_name = "cpu";
  std::vector<std::filesystem::path> files;
  app.add_option("--device", device_name, "cpu | cuda");
  app.add_option("--rounds", rounds)->check(CLI::PositiveNumber);
  app.add_option("--pairs", pairs)->check(CLI::PositiveNumber);
  app.add_option("--trace", files)->check(CLI::ExistingFile);
  CLI11_PARSE(app, argc, argv);

  return ashlar::run_main("perf_allocator", [&] {
    const ashlar::Device device = ashlar::parse_device(device_name);
    const ordered_json pair_results = measure_pairs(device, rounds, pairs);
    ordered_json replays = ordered_json::array();
    const auto add = [&](const std::string& name, const ashlar::Trace& trace) {
      replays.push_back(measure_replay(name, trace, true, device, rounds));
    };
    add("fsdp", ashlar::fsdp_trace());
    replays.push_back(measure_replay("fsdp", ashlar::fsdp_trace(), false, device, rounds));
    ashlar::FsdpTrace large;
    large.layers = 48;
    large.steps = 3;
    large.ranks = 64;
    large.width = 4096;
    large.tokens = 2048;
    if (device.type == ashlar::DeviceType::cpu)  // needs no bytes there
      add("fsdp, 48 layers of 4096, 64 ranks", ashlar::fsdp_trace(large));
    for (const unsigned seed : {1U, 2U, 3U})
      add(fmt::format("variable lengths, seed {}", seed), ashlar::variable_lengths_trace(seed));
    add("steady step", ashlar::steady_step_trace());
    add("random sizes", ashlar::random_sizes_trace(1));
    for (const std::filesystem::path& file : files) add(file.string(), ashlar::read_trace(file));

    double load = 0;
    std::ifstream("/proc/loadavg") >> load;
    const ordered_json report{{"benchmark", "allocator"},
                              {"device", ashlar::to_string(device)},
                              {"load_average", load},
                              {"hardware", hardware()},
                              {"rounds", rounds},
                              {"pairs", pairs},
                              {"run_ahead_operations", ReplayDevice::kRunAhead},
                              {"results", pair_results},
                              {"replays", replays}};
    fmt::print("{}\n", report.dump(2));
    return 0;
  });
}
