// One cache among threads that allocate, free what others allocated, look and trim, all at once.
#include <doctest/doctest.h>

#include <atomic>
#include <mutex>
#include <random>
#include <thread>
#include <vector>

#include "ashlar/caching_resource.hpp"
#include "support/temporary_folder.hpp"

using namespace ashlar;

TEST_CASE("caching fuzz: threads free each other's memory while others look at it and trim") {
  constexpr std::size_t kThreads = 3;
  constexpr int kBlocks = 300;
  struct Block {
    unsigned char* at;
    std::int64_t bytes;
    unsigned char value;
  };
  struct Mailbox {
    std::mutex mutex;
    std::vector<Block> blocks;
  };
  const TemporaryFolder folder;
  const std::unique_ptr<PageSource> pages = host_pages();
  CachingOptions options;
  options.history = 20;
  CachingResource resource(*pages, options);
  const std::vector<Stream> streams(kThreads);
  std::vector<Mailbox> boxes(kThreads);  // of blocks on stream t, for thread t + 1 to free
  std::atomic<int> working{kThreads};
  std::atomic<int> overlaps{0};

  const auto free_some = [&](std::size_t t) {
    std::vector<Block> blocks;
    {
      const std::scoped_lock lock(boxes[t].mutex);
      blocks.swap(boxes[t].blocks);
    }
    for (const Block& block : blocks) {
      StreamRef(streams[t]).enqueue([block, &overlaps] {
        if (block.at[0] != block.value || block.at[block.bytes - 1] != block.value) ++overlaps;
      });
      resource.deallocate(block.at, block.bytes, Category::activation, streams[t]);
    }
    return std::ssize(blocks);
  };
  const auto work = [&](std::size_t t) {
    std::mt19937 random(static_cast<unsigned>(t));
    std::int64_t freed = 0;
    for (int i = 0; i < kBlocks; ++i) {
      const auto bytes = static_cast<std::int64_t>(random() % 3'000'000 + 1);
      void* at = resource.allocate(bytes, Category::activation, streams[t]);
      const Block block{static_cast<unsigned char*>(at), bytes,
                        static_cast<unsigned char>(random())};
      StreamRef(streams[t]).enqueue([block] {
        block.at[0] = block.at[block.bytes - 1] = block.value;
      });
      {
        const std::scoped_lock lock(boxes[t].mutex);
        boxes[t].blocks.push_back(block);
      }
      freed += free_some((t + 1) % kThreads);
    }
    --working;
    for (; freed < kBlocks; std::this_thread::yield()) freed += free_some((t + 1) % kThreads);
  };
  std::vector<std::thread> threads;
  for (std::size_t t = 0; t < kThreads; ++t) threads.emplace_back(work, t);
  for (int i = 0; working > 0; ++i) {
    const CachingStatistics seen = resource.statistics();
    CHECK(seen.reserved_bytes >= seen.live_bytes);
    CHECK(seen.peak_live_bytes >= seen.live_bytes);
    if (i % 4 == 1) resource.trim();
    if (i % 4 == 3) resource.dump_snapshot(folder.path / "snapshot.pickle");
  }
  for (std::thread& thread : threads) thread.join();
  for (const Stream& stream : streams) {
    StreamRef(stream).synchronize();
    resource.retire(stream);
  }
  CHECK(overlaps == 0);
  CHECK(resource.statistics().live_bytes == 0);
  CHECK(resource.statistics().allocations == kThreads * kBlocks);
  resource.trim();
  CHECK(resource.statistics().reserved_bytes == 0);
}
