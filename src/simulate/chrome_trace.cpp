#include "simulate/chrome_trace.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <ostream>

namespace ashlar::simulate {
namespace {

using Json = nlohmann::ordered_json;

class Writer {
 public:
  Writer(std::ostream& out, const Program& program, const Workload& workload,
         std::span<const int> shown)
      : out_(out), program_(program), workload_(workload), shown_(shown) {}

  void write(std::span<const RankClass> classes, const Jitter& jitter) {
    out_ << "{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n";
    for (const int c : shown_) {
      const RankClass& ranks = classes[static_cast<std::size_t>(c)];
      describe(c, -1, "process_name", fmt::format("{} rank(s) x {}", ranks.ranks, ranks.slowdown));
      describe(c, 0, "thread_name", "compute");
      describe(c, 1, "thread_name", "communication");
      if (std::ranges::any_of(workload_.collectives,
                              [](const CollectiveCall& call) { return call.stream > 0; }))
        describe(c, 2, "thread_name", "communication, reductions");
      if (std::ranges::count(workload_.tasks, Task::Kind::copy, &Task::kind) > 0)
        describe(c, kCopies, "thread_name", "copies from the host");
    }
    run(
        workload_, classes, [this](const Span& span) { add(span); }, jitter);
    out_ << "\n]}\n";
  }

 private:
  static constexpr int kCopies = 3;

  void event(const Json& json) {
    if (!first_) out_ << ",\n";
    first_ = false;
    out_ << json.dump();
  }

  void describe(int process, int thread, const char* what, const std::string& name) {
    Json json{{"name", what}, {"ph", "M"}, {"pid", process}};
    if (thread >= 0) json["tid"] = thread;
    json["args"] = {{"name", name}};
    event(json);
  }

  void complete(int process, int thread, const std::string& name, const char* kind, double begin,
                double end) {
    event({{"name", name},
           {"cat", kind},
           {"ph", "X"},
           {"pid", process},
           {"tid", thread},
           {"ts", begin * 1e-6},
           {"dur", (end - begin) * 1e-6}});
  }

  void add(const Span& span) {
    if (!is_shown(span.rank_class)) return;
    const auto begin = static_cast<double>(span.begin), end = static_cast<double>(span.end);
    if (span.task->kind == Task::Kind::copy)
      return complete(span.rank_class, kCopies, "inputs", "copy", begin, end);
    if (span.task->kind != Task::Kind::compute) {
      const auto& call = workload_.collectives[static_cast<std::size_t>(span.task->collective)];
      const std::string name = fmt::format("{} {}", name_of(call.kind), call.label);
      if (span.flight)
        complete(span.rank_class, 1 + call.stream, name, "collective", begin, end);
      else
        complete(span.rank_class, 0, "wait for " + name, "wait", begin, end);
      return;
    }
    kernels(span, begin, end);
  }

  /// A task's kernels share its time as they share its price.
  void kernels(const Span& span, double begin, double end) {
    if (span.task->picoseconds == 0) return;
    const double scale = (end - begin) / static_cast<double>(span.task->picoseconds);
    for (int i = span.task->first_step; i < span.task->last_step; ++i) {
      const Step& step = program_.steps[static_cast<std::size_t>(i)];
      const Node& node = program_.graph.nodes[static_cast<std::size_t>(step.node)];
      const auto price =
          static_cast<double>(workload_.step_picoseconds[static_cast<std::size_t>(i)]);
      if (price == 0) continue;
      const double done = begin + price * scale;
      const std::string unit =
          node.unit < 0 ? "" : program_.graph.units[static_cast<std::size_t>(node.unit)];
      complete(span.rank_class, 0, fmt::format("{} {}", node.op->name, unit),
               node.section == Section::update ? "update"
               : node.backward                 ? "backward"
                                               : "forward",
               begin, done);
      begin = done;
    }
  }

  bool is_shown(int c) const { return std::ranges::find(shown_, c) != shown_.end(); }

  std::ostream& out_;
  const Program& program_;
  const Workload& workload_;
  std::span<const int> shown_;
  bool first_ = true;
};

}  // namespace

void write_chrome_trace(std::ostream& out, const Program& program, const Workload& workload,
                        std::span<const RankClass> classes, std::span<const int> shown,
                        const Jitter& jitter) {
  Writer(out, program, workload, shown).write(classes, jitter);
}

}  // namespace ashlar::simulate
