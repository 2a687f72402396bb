// A training step as data: an SSA graph of typed values. Passes read a Graph and return a Graph.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <source_location>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "ashlar/category.hpp"
#include "ashlar/dtype.hpp"
#include "ashlar/sharding.hpp"
#include "ashlar/tensor_view.hpp"

namespace ashlar {

struct OpDef;

/// Element type and extents.
struct TensorType {
  DType dtype = DType::f32;
  Shape shape;
  std::int64_t elements() const { return shape.elements(); }
  std::int64_t bytes() const { return elements() * size_of(dtype); }
  bool operator==(const TensorType&) const = default;
};

using ValueId = std::int32_t;
inline constexpr ValueId kNoValue = -1;

/// Constants of a node by name, in the order given. Names are string literals.
class Attributes {
 public:
  using Attribute = std::variant<std::int64_t, double, Shape, std::vector<std::int64_t>>;
  Attributes() = default;
  Attributes(std::initializer_list<std::pair<std::string_view, Attribute>> entries)
      : entries_(entries) {}

  /// @throws Error when there is none of that name and kind.
  std::int64_t integer(std::string_view name) const;
  double number(std::string_view name) const;
  const Shape& shape(std::string_view name) const;
  const std::vector<std::int64_t>& list(std::string_view name) const;
  bool has(std::string_view name) const;
  void set(std::string_view name, Attribute value);
  std::span<const std::pair<std::string_view, Attribute>> entries() const { return entries_; }

 private:
  std::vector<std::pair<std::string_view, Attribute>> entries_;
};

/// Where in a step a node runs: once, once per micro-batch, once after the last micro-batch.
enum class Section : std::uint8_t { prologue, body, update };

struct Node {
  const OpDef* op = nullptr;
  Attributes attributes;
  std::vector<ValueId> inputs;  // kNoValue where an optional input is absent
  std::vector<ValueId> outputs;
  int unit = -1;  // index into Graph::units
  Section section = Section::body;
  bool backward = false;
  int micro_batch = 0;  // of those that one run of the body holds
  std::source_location where;
};

/// What a graph input is.
enum class InputKind : std::uint8_t { none, data, parameter, state };

struct ValueInfo {
  TensorType type;
  Shape strides;      // elements
  int producer = -1;  // index of the node, -1 for inputs
  Category category = Category::activation;
  InputKind input = InputKind::none;
  int parameter = -1;   // InputKind::parameter: index into Graph::parameters
  int micro_batch = 0;  // InputKind::data: of those that one run of the body holds
  std::string name;     // inputs, outputs and parameters; else empty
};

/// Nodes in topological order. Plain data; a Graph owns nothing but its tables.
struct Graph {
  std::vector<ValueInfo> values;
  std::vector<Node> nodes;
  std::vector<ValueId> inputs;  // data, parameters and states
  std::vector<std::pair<std::string, ValueId>> outputs;
  std::vector<Parameter> parameters;
  std::vector<std::string> units;

  const ValueInfo& operator[](ValueId id) const { return values[static_cast<std::size_t>(id)]; }
  ValueInfo& operator[](ValueId id) { return values[static_cast<std::size_t>(id)]; }
  ValueId input(std::string_view name, int micro_batch = 0) const;  // kNoValue if there is none
  ValueId output(std::string_view name) const;                      // kNoValue if there is none
};

class Tracer;

/// Symbolic handle of a value under construction. An empty handle stands for "absent" (an optional
/// input, a zero cotangent). Valid while its Tracer lives.
class Value {
 public:
  Value() = default;
  Value(Tracer* tracer, ValueId id) : tracer_(tracer), id_(id) {}
  explicit operator bool() const { return tracer_ != nullptr; }
  ValueId id() const { return id_; }
  Tracer& tracer() const { return *tracer_; }
  TensorType type() const;  // a copy: the graph's tables move as it grows
  Shape shape() const { return type().shape; }
  DType dtype() const { return type().dtype; }
  bool contiguous() const;

 private:
  Tracer* tracer_ = nullptr;
  ValueId id_ = kNoValue;
};

/// Builds a Graph by running model code over Values.
class Tracer {
 public:
  Tracer() = default;
  /// Goes on with a graph that exists: differentiate and other passes append to it.
  explicit Tracer(Graph graph) : graph_(std::move(graph)) {}

  /// A per-step input, for example tokens.
  Value input(std::string name, DType dtype, const Shape& shape,
              Category category = Category::input);
  /// A trainable (or frozen) parameter of the current unit. The same name again gives the same
  /// value (tied weights).
  Value parameter(Parameter declaration);
  /// A value that outlives the step and is updated in place by nodes whose op must reuse it.
  Value state(std::string name, DType dtype, const Shape& shape, Category category);
  void output(std::string name, Value value);

  /// Appends a node; the op's shape rule types the outputs. @throws InvalidArgument naming op and
  /// shapes on a mismatch.
  std::vector<Value> apply(const OpDef& op, std::span<const Value> inputs,
                           Attributes attributes = {},
                           std::source_location where = std::source_location::current());
  Value apply1(const OpDef& op, std::initializer_list<Value> inputs, Attributes attributes = {},
               std::source_location where = std::source_location::current());

  /// Nodes and parameters made while the scope lives belong to the unit of that name.
  class UnitScope;
  UnitScope unit(std::string_view name);

  /// A number that differs between nodes and is the same for the same model: keys the random
  /// numbers of an op.
  std::int64_t next_key() { return next_key_++; }

  Graph& graph() { return graph_; }
  const Graph& graph() const { return graph_; }
  void set_unit(int unit) { unit_ = unit; }
  int current_unit() const { return unit_; }
  void set_section(Section section) { section_ = section; }
  void set_backward(bool backward) { backward_ = backward; }
  void set_micro_batch(int micro_batch) { micro_batch_ = micro_batch; }
  bool backward() const { return backward_; }

 private:
  ValueId add_value(const TensorType& type, Category category);

  Graph graph_;
  int unit_ = -1;
  Section section_ = Section::body;
  bool backward_ = false;
  int micro_batch_ = 0;
  std::int64_t next_key_ = 1;
};

class Tracer::UnitScope {
 public:
  UnitScope(Tracer& tracer, int unit) : tracer_(tracer), previous_(tracer.current_unit()) {
    tracer.set_unit(unit);
  }
  ~UnitScope() { tracer_.set_unit(previous_); }
  UnitScope(const UnitScope&) = delete;
  UnitScope& operator=(const UnitScope&) = delete;

 private:
  Tracer& tracer_;
  int previous_;
};

/// Throws unless the graph is well formed: topological order, types, strides, in-place updates
/// after the last reader.
void validate(const Graph& graph);

/// One line per value and node, for reading, and for ranks to compare.
std::string to_string(const Graph& graph);

}  // namespace ashlar
