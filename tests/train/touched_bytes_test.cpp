// The arenas of a GPT step are as high as what the kernels and collectives write into them.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>

#include "ashlar/communicator.hpp"
#include "sharding/train_step_parts.hpp"
#include "train/decorators.hpp"
#include "train/tiny_gpt.hpp"

namespace ashlar {
namespace {

constexpr std::byte kUntouched{0x5b};

/// Hands out memory that is filled with a pattern.
class PatternResource final : public MemoryResource {
 public:
  /// The latest block of that size; null if there was none.
  const std::byte* block(std::int64_t bytes) const {
    const auto found = std::find_if(blocks_.rbegin(), blocks_.rend(),
                                    [&](const auto& block) { return block.second == bytes; });
    return found == blocks_.rend() ? nullptr : found->first;
  }

 private:
  void* do_allocate(std::int64_t bytes, Category category, StreamRef stream) override {
    void* const data = host_memory().allocate(bytes, category, stream);
    std::memset(data, static_cast<int>(kUntouched), static_cast<std::size_t>(bytes));
    blocks_.emplace_back(static_cast<const std::byte*>(data), bytes);
    return data;
  }
  void do_deallocate(void* pointer, std::int64_t bytes, Category category,
                     StreamRef stream) noexcept override {
    host_memory().deallocate(pointer, bytes, category, stream);
  }

  std::vector<std::pair<const std::byte*, std::int64_t>> blocks_;
};

void check_top(const Program& program, std::size_t space, const PatternResource& memory) {
  const std::int64_t height = program.heights[space];
  if (height == 0) return;
  const std::byte* const arena = memory.block(height);
  REQUIRE(arena != nullptr);
  std::int64_t top = height - 1;
  while (top >= 0 && arena[top] == kUntouched) --top;
  std::int64_t begin = 0, end = 0;  // of the buffers that end last
  for (const auto& [buffer, offset] : program.placed) {
    const std::int64_t last = offset + buffer.bytes;
    if (buffer.window != (space == 3) || last < end) continue;
    begin = last > end ? offset : std::min(begin, offset);
    end = last;
  }
  CHECK(height - end < kAlignment);
  CHECK(top >= begin);
  CHECK(top < end);
}

}  // namespace

TEST_CASE("train step: the highest byte of each arena that is touched lies in a topmost buffer") {
  for (int stage = 0; stage <= 3; ++stage) {
    for (const DType dtype : {DType::f32, DType::bf16}) {
      CAPTURE(stage);
      CAPTURE(name_of(dtype));
      launch_threads(2, [&](Communicator& threads) {
        PatternResource memory, window;
        WithWindow world(threads, window);
        TrainConfig config;
        config.zero.stage = stage;
        config.precision = {dtype, dtype};
        config.samples = 2;
        config.clip = 1;
        config.memory = &memory;
        Program program;
        const ModelTrace how{2, kTinySequence, dtype, 0, {}};
        TrainStep step(world, tiny_gpt_loss(tiny_gpt(), how), config, {},
                       {[&](Program& compiled) { program = compiled; },
                        [](Executor& executor) { executor.poison = false; }});
        step.step([&](std::int64_t, const Batch& batch) { load_tokens(batch, 0, world.rank()); });
        threads.barrier();
        if (threads.rank() != 0) return;
        check_top(program, 2, memory);
        check_top(program, 3, window);
      });
    }
  }
}

}  // namespace ashlar
