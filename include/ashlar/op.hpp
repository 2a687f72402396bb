// An operation is one row: how it types its outputs, how it is differentiated, what it may
// overwrite, what it costs and the kernel that runs it. Adding an op is adding a row.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "ashlar/communicator.hpp"
#include "ashlar/device.hpp"
#include "ashlar/graph.hpp"

namespace ashlar {

class ThreadPool;

struct KernelArguments;
struct OpShapes;

/// What runs on a device in the place of a row's own kernel. It returns once it is enqueued on the
/// context's stream, and has no plan of prepare().
struct DeviceKernel {
  std::string_view op;  // OpDef::name
  void (*run)(const KernelArguments& arguments) = nullptr;
  /// Scratch bytes of one run where they differ from the row's; null where they do not.
  std::int64_t (*workspace)(const OpShapes& shapes) = nullptr;
};

/// The machine that kernels are chosen for. Part of what compilation depends on: equal backends
/// plan equal bytes.
struct Backend {
  std::string cpu;  // "zen5", "sapphire_rapids", ...: key of the kernel table
  int threads = 1;  // per rank
  /// Whose memory kernels work on. The rows' own run on the CPU's alone.
  DeviceType device = DeviceType::cpu;
  /// Finds the device's kernel of an op, null where there is none; null: the rows' own run all.
  const DeviceKernel* (*find_kernel)(std::string_view op) = nullptr;
};

/// What a node sees of itself when it is typed, sized and priced.
struct OpShapes {
  std::span<const TensorType> inputs;  // of an absent input: a f32 scalar
  std::span<const TensorType> outputs;
  const Attributes& attributes;
};

/// Numbers that change from run to run; read by kernels, never compiled in.
struct RunScalars {
  std::uint64_t seed = 0;
  std::int64_t step = 1;           // 1 for the first
  std::int64_t micro_batch = 0;    // 0 .. K-1
  std::int64_t micro_batches = 1;  // K
  std::int64_t first_sample =
      0;  // global index, within the micro-batch, of this rank's first sample
  double learning_rate = 0;
};

/// What kernels get from whoever runs them. Work on a device goes to `stream`, and reads seed, step
/// and learning rate from `on_device` where it is not null, so that a captured launch sees new
/// ones.
struct RunContext : RunScalars {
  ThreadPool* pool = nullptr;
  Communicator* communicator = nullptr;
  StreamRef stream = {};
  const RunScalars* on_device = nullptr;
};

/// One call of a kernel. Absent inputs have data == nullptr. `workspace` has workspace() bytes.
/// `plan` is what prepare() returned for this node, or null.
struct KernelArguments {
  const RunContext& context;
  const Attributes& attributes;
  std::span<const TensorView> inputs;
  std::span<const TensorView> outputs;
  std::byte* workspace = nullptr;
  const void* plan = nullptr;
  std::string_view label = {};  // label_of() the node, for messages of collectives
};

/// What a vjp rule sees: values of one node in the graph that is being extended. `cotangents` has
/// one entry per output, empty where nothing flows back; `needed[i]` tells whether input i wants a
/// cotangent; `gradient_dtypes[i]` is the type that input i's cotangent is computed in (a
/// parameter's may be wider than the parameter).
struct VjpArguments {
  Tracer& tracer;
  const Attributes& attributes;
  std::span<const Value> inputs;
  std::span<const Value> outputs;
  std::span<const Value> cotangents;
  std::span<const bool> needed;
  std::span<const DType> gradient_dtypes;
};

/// What a jvp rule sees. `tangents` has one entry per input, of the input's type, empty where zero.
struct JvpArguments {
  const OpDef& op;
  Tracer& tracer;
  const Attributes& attributes;
  std::span<const Value> inputs;
  std::span<const Value> outputs;
  std::span<const Value> tangents;
};

/// Floating-point operations and bytes of one run.
struct Cost {
  enum class Class : std::uint8_t { none, memory, product, attention, collective };
  Class kind = Class::memory;
  double flops = 0;
  double bytes_read = 0;
  double bytes_written = 0;
};

/// Where a view lies in its input.
struct ViewLayout {
  std::int64_t offset = 0;       // elements
  std::int64_t rank_stride = 0;  // elements: rank r's view begins at offset + r x rank_stride
  Shape strides;                 // elements
};

/// One row of the table. Members that an op does not have stay empty.
struct OpDef {
  std::string_view name;
  /// Types of the outputs. @throws InvalidArgument.
  std::vector<TensorType> (*shape)(std::span<const TensorType> inputs,
                                   const Attributes& attributes) = nullptr;
  /// Cotangents of the inputs, one per input, empty where not needed or zero.
  std::vector<Value> (*vjp)(const VjpArguments&) = nullptr;
  /// Tangents of the outputs, empty where zero. The rules below serve most rows.
  std::vector<Value> (*jvp)(const JvpArguments&) = nullptr;
  /// The outputs again, made of rows that are differentiated; empty for residuals (outputs that
  /// only backward reads), which are not differentiable. Serves where vjp or jvp is null: rows of
  /// backward, and jvp of fused rows.
  std::vector<Value> (*expand)(std::span<const Value> inputs,
                               const Attributes& attributes) = nullptr;
  /// The outputs are constants to derivatives of either mode, whatever they are computed from.
  bool stops_derivatives = false;
  /// Why a row has none of these; part of the error when it is differentiated all the same.
  std::string_view not_differentiable = {};
  /// Not null: the only output is a view of input 0 and the node runs nothing. Nothing where the
  /// input's strides forbid a view.
  std::optional<ViewLayout> (*view)(const TensorType& input, const Shape& strides,
                                    const TensorType& output,
                                    const Attributes& attributes) = nullptr;
  /// Inputs whose memory output 0 may take over when they die here (same bytes, element-wise
  /// access).
  std::vector<int> may_reuse = {};
  /// (output, input) pairs that are the same memory, for a node of that many inputs: in-place
  /// updates.
  std::vector<std::pair<int, int>> (*must_reuse)(std::size_t inputs,
                                                 const Attributes& attributes) = nullptr;
  /// Where input i is to lie inside output 0, in elements; nothing where it stays apart. The
  /// planner places what it can; the kernel copies what is not in place already.
  std::optional<std::int64_t> (*place)(std::size_t input, const Attributes& attributes) = nullptr;
  /// Scratch bytes of one run.
  std::int64_t (*workspace)(const OpShapes&, const Backend&) = nullptr;
  Cost (*cost)(const OpShapes&) = nullptr;
  /// Output `rebuilt` again, by little work, from what backward keeps anyway (the node's inputs and
  /// its other outputs): same bits. Null where there is no such way.
  int rebuilt = 0;
  Value (*rebuild)(std::span<const Value> inputs, std::span<const Value> outputs,
                   const Attributes& attributes) = nullptr;
  /// A second run gives the same bits and is allowed (collectives and state updates: false).
  bool recompute = true;
  /// Made once per node when a step is compiled: library primitives and the like.
  std::shared_ptr<const void> (*prepare)(const OpShapes&, const Backend&) = nullptr;
  /// The kernel. Null for views and collectives.
  void (*run)(const KernelArguments&) = nullptr;
  /// Collectives: begins the operation; its inputs and outputs are in use until the Work has been
  /// waited for. Big inputs live in the communicator's window.
  Work (*start)(const KernelArguments&) = nullptr;
  /// Inputs that the kernel reads through their strides; all others are contiguous (trace copies
  /// them if they are not).
  std::vector<int> strided_inputs = {};
};

// Rules for OpDef::jvp.
/// Jointly linear in the floating-point inputs: the op itself, on the tangents.
std::vector<Value> linear_jvp(const JvpArguments& arguments);
/// Linear in each floating-point input: the sum over i of the op with input i replaced by its
/// tangent.
std::vector<Value> multilinear_jvp(const JvpArguments& arguments);
/// The Jacobian of the only output by each input is symmetric (element-wise ops: diagonal): the
/// row's own vjp of the tangents.
std::vector<Value> symmetric_jvp(const JvpArguments& arguments);
/// Output 0 is a scalar: the inner product of the row's own gradient and the tangents. Other
/// outputs are residuals.
std::vector<Value> scalar_jvp(const JvpArguments& arguments);

/// What a message about the node names: its unit, or the value that it makes.
std::string_view label_of(const Graph& graph, const Node& node);

/// The (output, input) pairs of a node that share memory by its op's rule, absent inputs left out.
std::vector<std::pair<int, int>> in_place_pairs(const Node& node);

}  // namespace ashlar
