#include "graph/storage.hpp"

#include <algorithm>

namespace ashlar {
namespace {

std::size_t index(int i) { return static_cast<std::size_t>(i); }

class Resolver {
 public:
  Resolver(const Graph& graph, const std::vector<Instruction>& instructions)
      : graph_(graph), instructions_(instructions) {
    storage_.places.resize(graph.values.size());
  }

  Storage run() {
    for (const ValueId id : graph_.inputs) own(id);
    for (const Node& node : graph_.nodes) alias(node);
    find_last_readers();
    for (const Node& node : graph_.nodes) place(node);
    find_lifetimes();
    for (const Node& node : graph_.nodes) reuse(node);
    compact();
    find_lifetimes();
    for (StorageBuffer& buffer : storage_.buffers) buffer.window = false;
    for (const Node& node : graph_.nodes) mark_window(node);
    return std::move(storage_);
  }

 private:
  Place& at(ValueId id) { return storage_.places[index(id)]; }
  StorageBuffer& buffer(int b) { return storage_.buffers[index(b)]; }

  void own(ValueId id) {
    const ValueInfo& value = graph_[id];
    StorageBuffer fresh;
    fresh.bytes = value.type.bytes();
    fresh.category = value.category;
    fresh.kind = value.input;
    fresh.root = id;
    at(id) = {static_cast<int>(storage_.buffers.size()), 0, 0};
    storage_.buffers.push_back(fresh);
    forward_.push_back({-1, 0});
  }

  void alias(const Node& node) {
    if (node.op->view != nullptr) {
      const ValueId in = node.inputs[0], out = node.outputs[0];
      const auto layout =
          node.op->view(graph_[in].type, graph_[in].strides, graph_[out].type, node.attributes);
      const std::int64_t element = size_of(graph_[out].type.dtype);
      at(out) = {at(in).buffer, at(in).offset + layout->offset * element,
                 at(in).rank_stride + layout->rank_stride * element};
      return;
    }
    for (const ValueId id : node.outputs) at(id).buffer = -1;
    for (const auto& [output, input] : in_place_pairs(node))
      at(node.outputs[index(output)]) = at(node.inputs[index(input)]);
    for (const ValueId id : node.outputs) {
      if (at(id).buffer < 0) own(id);
    }
  }

  /// Buffer `from` becomes bytes [offset, ...) of buffer `to`.
  void merge(int from, int to, std::int64_t offset) {
    forward_[index(from)] = {to, offset};
    for (Place& place : storage_.places) {
      if (place.buffer == from) {
        place.buffer = to;
        place.offset += offset;
      }
    }
  }

  /// True when a value is the whole of a transient that may move as one.
  bool movable(ValueId id) {
    const Place& here = at(id);
    const StorageBuffer& mine = buffer(here.buffer);
    if (!(graph_[id].strides == contiguous_strides(graph_[id].type.shape))) return false;
    return mine.kind == InputKind::none && here.offset == 0 && here.rank_stride == 0 &&
           mine.bytes == graph_[id].type.bytes() && forward_[index(here.buffer)].first < 0 &&
           !placed_[index(here.buffer)];
  }

  void find_last_readers() {
    last_reader_.assign(storage_.buffers.size(), -1);
    for (std::size_t n = 0; n < graph_.nodes.size(); ++n) {
      for (const ValueId id : graph_.nodes[n].inputs) {
        if (id != kNoValue) last_reader_[index(at(id).buffer)] = static_cast<int>(n);
      }
    }
    for (const auto& [name, id] : graph_.outputs) {
      last_reader_[index(at(id).buffer)] = static_cast<int>(graph_.nodes.size());
    }
  }

  void place(const Node& node) {
    placed_.resize(storage_.buffers.size(), false);
    if (node.op->place == nullptr) return;
    const ValueId out = node.outputs[0];
    for (std::size_t i = 0; i < node.inputs.size(); ++i) {
      const ValueId id = node.inputs[i];
      const auto offset = node.op->place(i, node.attributes);
      if (id == kNoValue || !offset || !movable(id) || at(id).buffer == at(out).buffer) continue;
      // What is read after it was packed must not change with the flat.
      if (last_reader_[index(at(id).buffer)] > graph_[out].producer) continue;
      const int from = at(id).buffer, to = at(out).buffer;
      merge(from, to, at(out).offset + *offset * size_of(graph_[out].type.dtype));
      placed_[index(to)] = true;
    }
  }

  /// Output 0 takes over an input's bytes where the row allows it and the input dies here. When the
  /// output lies in a bucket already, the input moves there instead.
  void reuse(const Node& node) {
    if (node.op->may_reuse.empty()) return;
    const ValueId out = node.outputs[0];
    const Place mine = at(out);
    if (buffer(mine.buffer).kind != InputKind::none ||
        placed_[index(mine.buffer)] != (buffer(mine.buffer).root != out))
      return;
    for (const int i : node.op->may_reuse) {
      const ValueId in = node.inputs[index(i)];
      if (in == kNoValue || graph_[in].type.bytes() != graph_[out].type.bytes() || !movable(in))
        continue;
      const int other = at(in).buffer;
      if (other == mine.buffer || collective_[index(other)] || shared(node, in)) continue;
      if (repeats(node, other)) continue;
      if (buffer(other).last != position_[index(graph_[out].producer)] + 1) continue;
      if (buffer(mine.buffer).root != out) {
        merge(other, mine.buffer, mine.offset);
      } else if (!collective_[index(mine.buffer)]) {
        buffer(other).last = buffer(mine.buffer).last;
        merge(mine.buffer, other, 0);
      } else {
        continue;
      }
      return;
    }
  }

  /// True when the next micro-batch reads the buffer again: the prologue made it.
  bool repeats(const Node& node, int b) {
    if (node.section != Section::body || buffer(b).first < 0) return false;
    const int maker = instructions_[index(buffer(b).first)].node;
    return graph_.nodes[index(maker)].section == Section::prologue;
  }

  /// True when another input lies in the same bytes, as the value itself or as a view of it.
  bool shared(const Node& node, ValueId in) {
    return std::count_if(node.inputs.begin(), node.inputs.end(), [&](ValueId id) {
             return id != kNoValue && at(id).buffer == at(in).buffer;
           }) > 1;
  }

  void find_lifetimes() {
    for (StorageBuffer& b : storage_.buffers) b.first = b.last = -1;
    position_.assign(graph_.nodes.size(), -1);
    collective_.assign(storage_.buffers.size(), false);
    int body_first = -1, body_last = -1;
    for (int i = 0; i < static_cast<int>(instructions_.size()); ++i) {
      const Node& node = graph_.nodes[index(instructions_[index(i)].node)];
      if (node.section == Section::body) {
        body_first = body_first < 0 ? i : body_first;
        body_last = i;
      }
      position_[index(instructions_[index(i)].node)] = i;
      touch(node, i);
    }
    for (const auto& [name, id] : graph_.outputs)
      extend(id, static_cast<int>(instructions_.size()));  // read after the run
    for (StorageBuffer& b : storage_.buffers) {
      if (b.kind == InputKind::data) b.first = std::max(body_first, 0);
      if (b.first >= 0 && b.first < body_first && b.last > body_first)
        b.last = std::max(b.last, body_last + 1);
    }
  }

  void touch(const Node& node, int i) {
    for (const ValueId id : node.inputs) {
      if (id == kNoValue) continue;
      extend(id, i);
      if (node.op->start != nullptr) collective_[index(at(id).buffer)] = true;
    }
    for (const ValueId id : node.outputs) {
      // A view touches nothing; its uses do.
      if (node.op->view == nullptr) extend(id, i);
      if (node.op->start != nullptr) collective_[index(at(id).buffer)] = true;
    }
  }

  void extend(ValueId id, int i) {
    StorageBuffer& b = buffer(at(id).buffer);
    if (b.first < 0) b.first = i;
    b.last = std::max(b.last, i + 1);
  }

  /// Drops merged buffers and renumbers.
  void compact() {
    std::vector<int> renumber(storage_.buffers.size(), -1);
    std::vector<StorageBuffer> kept;
    for (std::size_t b = 0; b < storage_.buffers.size(); ++b) {
      if (forward_[b].first >= 0) continue;
      renumber[b] = static_cast<int>(kept.size());
      kept.push_back(storage_.buffers[b]);
    }
    for (Place& place : storage_.places) place.buffer = renumber[index(place.buffer)];
    storage_.buffers = std::move(kept);
    forward_.assign(storage_.buffers.size(), {-1, 0});
  }

  void mark_window(const Node& node) {
    if (node.op->start == nullptr) return;
    for (const ValueId id : node.inputs) {
      if (id != kNoValue && buffer(at(id).buffer).bytes >= kWindowBytes)
        buffer(at(id).buffer).window = true;
    }
  }

  const Graph& graph_;
  const std::vector<Instruction>& instructions_;
  Storage storage_;
  std::vector<std::pair<int, std::int64_t>> forward_;  // by buffer: merged into (buffer, offset)
  std::vector<bool> placed_;                           // by buffer: other buffers lie in it
  std::vector<bool> collective_;                       // by buffer: a collective touches it
  std::vector<int> last_reader_;  // by buffer, before placement: the last node that reads it
  std::vector<int> position_;     // by node: its (last) instruction
};

}  // namespace

Storage resolve_storage(const Graph& graph, const std::vector<Instruction>& instructions) {
  return Resolver(graph, instructions).run();
}

}  // namespace ashlar
