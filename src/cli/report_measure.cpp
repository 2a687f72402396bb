#include <fmt/format.h>

#include <algorithm>
#include <mutex>
#include <random>

#include "ashlar/communicator.hpp"
#include "ashlar/memory_resource.hpp"
#include "cli/report_step.hpp"

namespace ashlar::cli {
namespace {

struct Measured {
  MemoryUse memory;
  SentBytes sent{};  // by kind, the most of any rank
};

Measured second_step(const ReportOptions& o) {
  const std::int64_t vocabulary = report_model(o).vocabulary();
  const auto load = [&](std::int64_t, const Batch& batch) {
    std::mt19937 random(1);
    for (const auto& [name, view] : batch)
      for (std::int32_t& token : view.span<std::int32_t>())
        token = static_cast<std::int32_t>(random() % static_cast<std::uint64_t>(vocabulary));
  };
  Measured measured;
  std::mutex mutex;
  launch_threads(o.ranks, [&](Communicator& world) {
    TrainStep train(world, report_loss(o), report_config(o));
    train.step(load);
    world.barrier();
    const SentBytes before = train.sent_bytes();
    const StepResult result = train.step(load);
    world.barrier();
    const SentBytes after = train.sent_bytes();
    const std::scoped_lock lock(mutex);
    measured.memory = result.memory;
    for (std::size_t k = 0; k < after.size(); ++k)
      measured.sent[k] = std::max(measured.sent[k], after[k] - before[k]);
  });
  return measured;
}

}  // namespace

bool measure(const ReportOptions& options, const StepReport& predicted) {
  const Measured measured = second_step(options);
  const Footprint& f = predicted.footprint;
  bool equal = true;
  const auto row = [&](std::string_view name, std::int64_t plan, std::int64_t real) {
    equal = equal && plan == real;
    fmt::print("  {:<26}{:>16}{:>16}{}\n", name, plan, real, plan == real ? "" : "  differs");
  };
  fmt::print("{:<28}{:>16}{:>16}\n", "bytes of a rank", "predicted", "measured");
  for (std::size_t c = 0; c < kCategories; ++c)
    row(name_of(static_cast<Category>(c)), f.peak.peak[c], measured.memory.peak[c]);
  row("total", f.peak.total, measured.memory.total);
  for (std::size_t k = 0; k < kTrafficKinds - 1; ++k)
    row(fmt::format("sent by {}", name_of(static_cast<Traffic>(k))), f.sent[k], measured.sent[k]);
  return equal;
}

}  // namespace ashlar::cli
