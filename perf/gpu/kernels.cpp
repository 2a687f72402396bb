// What a training step's kernels make of the device. Every instruction of a few steps is timed
// between two marks in the step's stream and, by op and size, compared with its ceiling: bytes over
// the rate of a copy measured in the same run, or operations over --peak-tflops, whichever takes
// longer. Steps are watched, so issued, never replayed. Prints one JSON object. Flags: those of a
// step (perf_gpu_kernels --help), --device cuda, --steps N (3), --peak-tflops T.
#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "ashlar/buffer.hpp"
#include "ashlar/data.hpp"
#include "ashlar/device_memory.hpp"
#include "ashlar/run_main.hpp"
#include "cli/flags/step_options.hpp"
#include "cuda/check.h"
#include "cuda/native_stream.hpp"
#include "hardware.hpp"
#include "ops/cuda_backend.hpp"
#include "sharding/step_device.hpp"
#include "simulate/op_time.hpp"
#include "timing.hpp"

namespace {

using namespace ashlar;
using nlohmann::ordered_json;

constexpr int kWarmUp = 2;  // steps, and copies

/// Moments of a stream's work; on the CPU, of the calls.
class Marks {
 public:
  explicit Marks(StreamRef stream) : stream_(stream) {}
  ~Marks() {
    for (const cudaEvent_t event : events_) cudaEventDestroy(event);
  }
  Marks(const Marks&) = delete;
  Marks& operator=(const Marks&) = delete;

  /// After what the stream holds now. @return its number
  std::size_t add() {
    if (used_ == events_.size() && !stream_.is_inline())
      cuda::check(cudaEventCreate(&events_.emplace_back()));
    if (stream_.is_inline())
      times_.push_back(perf::Clock::now());
    else
      cuda::check(
          cudaEventRecord(events_[used_], static_cast<cudaStream_t>(cuda::native_stream(stream_))));
    return used_++;
  }
  /// The stream has passed both.
  double seconds(std::size_t first, std::size_t last) const {
    if (stream_.is_inline())
      return std::chrono::duration<double>(times_[last] - times_[first]).count();
    float milliseconds = 0;
    cuda::check(cudaEventElapsedTime(&milliseconds, events_[first], events_[last]));
    return 1e-3 * static_cast<double>(milliseconds);
  }
  /// Events are used again: once there are enough, steps make none.
  void clear() {
    used_ = 0;
    times_.clear();
  }

 private:
  StreamRef stream_;
  std::size_t used_ = 0;
  std::vector<cudaEvent_t> events_;
  std::vector<perf::Clock::time_point> times_;
};

/// Bytes per second, read and written, of the median of ten copies.
double copy_rate(MemoryResource& memory, StreamRef stream) {
  const std::int64_t bytes = std::int64_t{1} << (stream.is_inline() ? 26 : 30);
  const Buffer from(memory, bytes, Category::activation, stream);
  const Buffer to(memory, bytes, Category::activation, stream);
  fill_async(from.data(), 1, bytes, stream);
  fill_async(to.data(), 2, bytes, stream);
  Marks marks(stream);
  std::vector<double> seconds;
  for (int round = -kWarmUp; round < 10; ++round) {
    const std::size_t begin = marks.add();
    copy_async(to.data(), from.data(), bytes, stream);
    const std::size_t end = marks.add();
    stream.synchronize();
    if (round >= 0) seconds.push_back(marks.seconds(begin, end));
  }
  return 2 * static_cast<double>(bytes) / perf::median(seconds);
}

/// Instructions of one op on operands of the same sizes; a collective with its wait.
struct Row {
  std::string op, output;
  Cost cost;  // of one
  int calls = 0;
  std::vector<double> seconds;  // of all, by step
};

/// Times the instructions of an executor and adds them up in rows.
class Watch {
 public:
  Watch(const Program& program, StreamRef stream)
      : program_(program), marks_(stream), row_of_(program.steps.size()) {
    for (std::size_t i = 0; i < program.steps.size(); ++i)
      if (runs(program.steps[i])) add_to_row(i);
  }

  void attach(Executor& executor) {
    executor.on_event = [this](const ExecutorEvent& event) {
      if (event.kind != Instruction::Kind::wait) begin_ = marks_.add();
    };
    executor.on_load = [this](int step, const PerCategory<std::int64_t>&) {
      const std::size_t end = marks_.add();
      if (runs(program_.steps[static_cast<std::size_t>(step)]))
        spans_.push_back({static_cast<std::size_t>(step), begin_, end});
      begin_ = end;  // a wait begins where the instruction before it ended
    };
  }

  /// Of the step that has run. @param counts: it was no warm-up
  void end_step(bool counts) {
    for (Row& row : rows_)
      if (counts) row.seconds.push_back(0);
    for (const Span& span : spans_)
      if (counts) rows_[row_of_[span.step]].seconds.back() += marks_.seconds(span.begin, span.end);
    spans_.clear();
    marks_.clear();
    begin_ = 0;
  }

  const std::vector<Row>& rows() const { return rows_; }

 private:
  struct Span {
    std::size_t step, begin, end;
  };

  /// Not a view.
  bool runs(const Step& step) const {
    const OpDef& op = *program_.graph.nodes[static_cast<std::size_t>(step.node)].op;
    return op.run != nullptr || op.start != nullptr;
  }

  void add_to_row(std::size_t i) {
    const Step& step = program_.steps[i];
    const Node& node = program_.graph.nodes[static_cast<std::size_t>(step.node)];
    const Cost cost = cost_of(step);
    std::string output = "-";
    if (!node.outputs.empty()) {
      const TensorType& type = program_.graph[node.outputs[0]].type;
      output = fmt::format("{} {}", name_of(type.dtype), to_string(type.shape));
    }
    const std::string key = fmt::format("{} {} {} {}", node.op->name, output, cost.flops,
                                        cost.bytes_read + cost.bytes_written);
    const auto [found, added] = by_key_.try_emplace(key, rows_.size());
    if (added) rows_.push_back({std::string(node.op->name), output, cost, 0, {}});
    if (step.kind != Instruction::Kind::wait) ++rows_[found->second].calls;
    row_of_[i] = found->second;
  }

  /// Of a collective, the bytes of its operands.
  Cost cost_of(const Step& step) const {
    if (step.kind == Instruction::Kind::run) return simulate::cost_of_step(program_, step);
    Cost cost;
    for (const Operand& operand : step.inputs)
      if (operand.present) cost.bytes_read += static_cast<double>(operand.type.bytes());
    for (const Operand& operand : step.outputs)
      cost.bytes_written += static_cast<double>(operand.type.bytes());
    return cost;
  }

  const Program& program_;
  Marks marks_;
  std::vector<Row> rows_;
  std::map<std::string, std::size_t> by_key_;
  std::vector<std::size_t> row_of_;  // by step of the Program
  std::vector<Span> spans_;
  std::size_t begin_ = 0;
};

struct Ceilings {
  double copy = 0;        // bytes per second
  double operations = 0;  // per second; 0: not known
};

/// The least seconds of all calls of a row in a step.
double least_seconds(const Row& row, const Ceilings& ceilings) {
  const double moved = (row.cost.bytes_read + row.cost.bytes_written) / ceilings.copy;
  const double computed = ceilings.operations > 0 ? row.cost.flops / ceilings.operations : 0;
  return row.calls * std::max(moved, computed);
}

ordered_json table(std::vector<Row> rows, const Ceilings& ceilings) {
  std::ranges::sort(rows, std::greater(), [](const Row& row) { return perf::median(row.seconds); });
  ordered_json json = ordered_json::array();
  for (const Row& row : rows) {
    const double seconds = perf::median(row.seconds), calls = row.calls;
    if (seconds == 0) continue;  // it launched nothing
    json.push_back(
        {{"op", row.op},
         {"output", row.output},
         {"calls", row.calls},
         {"median_seconds", seconds},
         {"bytes_per_s", calls * (row.cost.bytes_read + row.cost.bytes_written) / seconds},
         {"operations_per_s", calls * row.cost.flops / seconds},
         {"of_ceiling", least_seconds(row, ceilings) / seconds},
         {"seconds", row.seconds}});
  }
  return json;
}

struct Options : cli::StepOptions {
  std::string device = "cuda";
  int steps = 3;
  double peak_tflops = 0;
};

void measure(const Options& options) {
  TrainConfig config = cli::step_config(options);
  config.device = parse_device(options.device);
  config.seed = 1;
  const LanguageModel model = language_model(options.model);
  const ModelTrace how = cli::model_trace(options, options.batch, options.dropout);
  const std::unique_ptr<StepDevice> device = StepDevice::open(world(), config);
  MemoryResource& memory = device ? *device->side().memory : host_memory();
  const StreamRef stream = device ? device->side().target.stream : StreamRef();
  const Ceilings ceilings{copy_rate(memory, stream), 1e12 * options.peak_tflops};

  std::unique_ptr<Watch> watch;
  const Program* program = nullptr;
  const TrainStep::Hooks hooks{[&](Program& compiled) { program = &compiled; },
                               [&](Executor& executor) {
                                 watch = std::make_unique<Watch>(*program, stream);
                                 watch->attach(executor);
                               },
                               device ? &device->side() : nullptr};
  TrainStep train(
      device ? device->ranks() : world(), [&](Tracer& t) { return model.loss(t, how); }, config, {},
      hooks);
  const auto tokens = synthetic_tokens(1 << 22, model.vocabulary(), 1);
  for (int step = -kWarmUp; step < options.steps; ++step) {
    train.step([&](std::int64_t k, const Batch& batch) {
      for (std::int64_t b = 0; b < options.batch; ++b) {
        const auto row = [&](const char* name) {
          return batch.at(name).span<std::int32_t>().subspan(
              static_cast<std::size_t>(b * options.seq), static_cast<std::size_t>(options.seq));
        };
        copy_sequence(*tokens, (k * options.batch + b) * options.seq, row("tokens"),
                      row("targets"));
      }
    });
    watch->end_step(step >= 0);
  }

  double spent = 0, least = 0;
  for (const Row& row : watch->rows()) {
    const double seconds = perf::median(row.seconds);
    spent += seconds;
    least += std::min(seconds, least_seconds(row, ceilings));  // less in caches and in place
  }
  const ordered_json report{{"benchmark", "kernels"},
                            {"commit", ASHLAR_COMMIT},
                            {"device", options.device},
                            {"model", model.name()},
                            {"precision", options.precision},
                            {"batch", options.batch},
                            {"seq", options.seq},
                            {"recompute", options.recompute},
                            {"attention_engine", device ? attention_engine(config.device) : "cpu"},
                            {"copy_bytes_per_s", ceilings.copy},
                            {"peak_tflops", options.peak_tflops},
                            {"seconds_per_step", spent},
                            {"of_ceiling", least / spent},
                            {"results", table(watch->rows(), ceilings)}};
  fmt::print("{}\n", report.dump());
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("The kernels of a training step beside the device's ceilings");
  Options options;
  options.model = "gpt2";
  options.precision = "bf16";
  options.batch = 16;
  options.seq = 1024;
  options.stage = 0;
  options.clip = 1;
  options.threads = 1;
  cli::StepFlags flags(app, options);
  app.add_option("--device", options.device, "cpu | cuda");
  app.add_option("--steps", options.steps, "that count")->check(CLI::PositiveNumber);
  app.add_option("--peak-tflops", options.peak_tflops, "of the device in this precision, dense");
  CLI11_PARSE(app, argc, argv);
  return run_main("perf_gpu_kernels", [&] {
    flags.fill_in();
    check(options);
    cli::require_trainable(options);
    measure(options);
    return 0;
  });
}
