// What a step is after all passes: instructions over fixed byte ranges. One Program serves all
// ranks; the executor, the report and the simulator read the same one.
#pragma once

#include <array>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "ashlar/memory_plan.hpp"
#include "graph/storage.hpp"

namespace ashlar {

/// The four arenas: what outlives the step and what does not, each private or in the communicator's
/// window.
enum class Space : std::uint8_t { state, state_window, transient, transient_window };
inline constexpr int kSpaces = 4;
template <typename T>
using PerSpace = std::array<T, kSpaces>;

/// A value as an instruction sees it. Rank r's bytes begin at offset + r x rank_stride of the
/// space.
struct Operand {
  Space space = Space::transient;
  std::int64_t offset = 0;
  std::int64_t rank_stride = 0;
  TensorType type;
  Shape strides;
  bool present = false;
};

/// Bytes from the first element to the end of the last.
std::int64_t extent_bytes(const Operand& operand);

struct Step {
  Instruction::Kind kind = Instruction::Kind::run;
  int node = 0;
  std::vector<Operand> inputs, outputs;
  Operand workspace;  // u8
  double flops = 0;   // of one run, by OpDef::cost
};

/// Where states lie, shared by all Programs of a model (train, evaluate, sample): (unit, role) is
/// the name.
class StateLayout {
 public:
  struct Entry {
    Space space = Space::state;
    std::int64_t offset = 0;
    TensorType type;
    Category category = Category::parameter;
  };
  /// Adds a state, or finds it again. @throws InvalidArgument when it was added with another type.
  const Entry& add(const std::string& name, const TensorType& type, Category category, bool window);
  const Entry& at(const std::string& name) const;
  const std::map<std::string, Entry>& entries() const { return entries_; }
  std::int64_t bytes(Space space) const { return bytes_[static_cast<std::size_t>(space)]; }
  /// Payload by category, without alignment.
  PerCategory<std::int64_t> by_category() const;

 private:
  std::map<std::string, Entry> entries_;
  PerSpace<std::int64_t> bytes_{};
};

/// Bytes over a step, counted in issue order. `total` = state + arena heights; `at_peak` are the
/// categories at the instant of the largest load, with `fragmentation` (height above the load) and
/// `padding` (alignment), summing to total.
struct PeakBytes {
  PerCategory<std::int64_t> peak{};
  PerCategory<std::int64_t> at_peak{};
  std::int64_t fragmentation = 0;
  std::int64_t padding = 0;
  std::int64_t total = 0;
  int step = 0;
};

struct Program {
  Backend backend;
  Graph graph;
  Storage storage;
  std::vector<Step> steps;
  int body_first = 0;  // steps [body_first, body_last) are repeated
  int body_last = 0;
  int micro_batches = 1;                               // that one run of the body holds
  std::map<std::string, std::vector<Operand>> inputs;  // data inputs, by micro-batch held
  std::map<std::string, Operand> outputs;
  Operand scalars;                   // RunScalars of the run, where kernels read them on a device
  PerSpace<std::int64_t> heights{};  // transient spaces only
  std::vector<std::pair<StorageBuffer, std::int64_t>>
      placed;  // transients and workspaces with their offsets
};

/// Runs the passes after `shard`: schedule, storage, plan. Pure: depends on its arguments alone.
Program compile(Graph graph, const ScheduleOptions& options, const Backend& backend,
                StateLayout& states);

/// The plan's own prediction of PeakBytes (a measurement comes from the executor).
PeakBytes planned_peak(const Program& program, const StateLayout& states);

/// Throws naming two instructions that touch the same bytes, one of them writing, without being
/// ordered: a collective is in flight from its start to its wait. Also where a section ends with a
/// collective in flight.
void detect_races(const Program& program, int ranks);

/// One line per instruction with kind, op, types and byte ranges: what ranks compare before the
/// first step.
std::vector<std::string> describe(const Program& program);

}  // namespace ashlar
