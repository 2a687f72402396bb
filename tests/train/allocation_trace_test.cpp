// The trace of a training step, read back: every use has its end, and the most that was live is
// what the step counted.
#include "ashlar/allocation_trace.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <numeric>
#include <optional>
#include <set>

#include "ashlar/communicator.hpp"
#include "support/temporary_folder.hpp"
#include "train/tiny_gpt.hpp"

namespace ashlar {

TEST_CASE("allocation trace: a step's buffers, the most live as counted, on two streams") {
  const TemporaryFolder folder;
  const auto path = folder.path / "step.csv";
  std::int64_t counted = 0;
  launch_threads(2, [&](Communicator& world) {
    std::optional<TraceWriter> writer;
    TrainConfig config;
    config.zero.stage = 3;
    config.micro_batches = 2;
    if (world.rank() == 0) config.allocation_trace = &writer.emplace(path);
    TrainStep train(world, tiny_gpt_loss(tiny_gpt(), {1, kTinySequence, DType::f32, 0.1, {}}),
                    config);
    for (std::int64_t i = 0; i < 2; ++i) {
      const StepResult result = train.step(
          [&](std::int64_t k, const Batch& batch) { load_tokens(batch, i * 2 + k, world.rank()); });
      if (world.rank() != 0) continue;
      const auto& load = result.memory.at_peak;
      counted = std::accumulate(load.begin(), load.end(), std::int64_t{0});
    }
    if (writer) writer->close();
  });
  const Trace trace = read_trace(path);
  CHECK(trace.peak_live_bytes() == counted);
  std::set<std::uint64_t> streams;
  std::set<Category> categories;
  for (const TraceOperation& operation : trace.operations) {
    streams.insert(operation.stream);
    categories.insert(operation.category);
  }
  CHECK(streams == std::set<std::uint64_t>{0, 1});
  CHECK(categories.size() == kCategories);
  CHECK(std::ranges::find(trace.names, "h.0 gather") != trace.names.end());
}

}  // namespace ashlar
