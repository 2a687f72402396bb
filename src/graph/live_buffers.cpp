#include "graph/live_buffers.hpp"

#include <algorithm>
#include <numeric>

namespace ashlar {
namespace {

std::size_t index(int i) { return static_cast<std::size_t>(i); }

std::int64_t padding_of(std::int64_t bytes) { return align_up(bytes) - bytes; }

}  // namespace

LiveBuffers::LiveBuffers(const Program& program,
                         const std::function<std::byte*(const Operand&)>& address)
    : program_(program),
      uses_(program.storage.buffers.size()),
      live_(program.storage.buffers.size()),
      carried_(program.storage.buffers.size()),
      makers_(program.storage.buffers.size()),
      planned_(program.storage.buffers.size()),
      data_(program.storage.buffers.size()) {
  for (const Step& step : program.steps) {
    Touched touched;
    touched.node = &program.graph.nodes[index(step.node)];
    const auto touch = [&](ValueId id) {
      if (id != kNoValue) touched.buffers.push_back(program.storage.places[index(id)].buffer);
    };
    for (const ValueId id : touched.node->inputs) touch(id);
    if (touched.node->op->view == nullptr) {
      for (const ValueId id : touched.node->outputs) touch(id);
    }
    if (step.workspace.present) {
      touched.planned_scratch = address(step.workspace);
      touched.scratch_bytes = step.workspace.type.bytes();
    }
    touched_.push_back(std::move(touched));
  }
  for (const auto& [buffer, offset] : program.placed) {
    if (buffer.root == kNoValue) continue;
    const Space space = buffer.window ? Space::transient_window : Space::transient;
    const Operand whole{space, offset, 0, {DType::u8, {buffer.bytes}}, {1}, true};
    planned_[index(program.storage.places[index(buffer.root)].buffer)] = address(whole);
  }
  find_carried();
}

LiveBuffers::~LiveBuffers() {
  on_use = nullptr;
  release_all();
}

/// What the prologue makes for later is read by every micro-batch.
void LiveBuffers::find_carried() {
  std::vector<bool> made(carried_.size());
  for (int i = 0; i < static_cast<int>(touched_.size()); ++i) {
    for (const int buffer : touched_[index(i)].buffers) {
      if (i < program_.body_first) {
        made[index(buffer)] = true;
      } else if (made[index(buffer)]) {
        carried_[index(buffer)] = true;
      }
    }
  }
}

void LiveBuffers::allocate_apart(MemoryResource* resource) {
  release_all();
  apart_ = resource;
}

void LiveBuffers::begin_run() {
  release_all();
  in_use_ = peak_ = at_peak_ = {};
  peak_load_ = padding_ = padding_at_peak_ = 0;
  count(0, static_cast<int>(touched_.size()));
}

void LiveBuffers::begin_body(bool again) {
  if (again) count(program_.body_first, static_cast<int>(touched_.size()));
  for (const ValueId id : program_.graph.inputs) {
    if (program_.graph[id].input == InputKind::data)
      begin_buffer(program_.storage.places[index(id)].buffer, nullptr);
  }
}

void LiveBuffers::end_last_body() {
  for (std::size_t b = 0; b < carried_.size(); ++b) {
    if (carried_[b]) end_use(static_cast<int>(b));  // the hold of count()
  }
}

void LiveBuffers::begin(int step) {
  Touched& touched = touched_[index(step)];
  for (const int buffer : touched.buffers) begin_buffer(buffer, touched.node);
  if (touched.scratch_bytes > 0) begin_scratch(touched);
  note_peak(touched);
}

void LiveBuffers::end(int step) {
  Touched& touched = touched_[index(step)];
  if (touched.scratch_bytes > 0) end_scratch(touched);
  for (const int buffer : touched.buffers) end_use(buffer);
}

void LiveBuffers::count(int first, int last) {
  for (int i = first; i < last; ++i) {
    for (const int buffer : touched_[index(i)].buffers) uses_[index(buffer)] = 0;
  }
  for (int i = first; i < last; ++i) {
    for (const int buffer : touched_[index(i)].buffers) {
      ++uses_[index(buffer)];
      // What an earlier micro-batch left for the update.
      if (live_[index(buffer)] && !carried_[index(buffer)]) release(buffer);
    }
  }
  for (std::size_t b = 0; b < carried_.size(); ++b) {
    if (carried_[b]) ++uses_[b];  // held until the last micro-batch is done
  }
  for (const auto& [name, id] : program_.graph.outputs) {
    ++uses_[index(program_.storage.places[index(id)].buffer)];
  }
}

bool LiveBuffers::is_state(int buffer) const {
  const InputKind kind = program_.storage.buffers[index(buffer)].kind;
  return kind == InputKind::state || kind == InputKind::parameter;
}

void LiveBuffers::begin_buffer(int buffer, const Node* maker) {
  if (live_[index(buffer)] || is_state(buffer)) return;
  const StorageBuffer& info = program_.storage.buffers[index(buffer)];
  live_[index(buffer)] = true;
  makers_[index(buffer)] = maker;
  in_use_[static_cast<std::size_t>(info.category)] += info.bytes;
  padding_ += padding_of(info.bytes);
  data_[index(buffer)] = place(info.bytes, info.category, planned_[index(buffer)]);
  if (on_use) on_use({true, info.category, info.bytes, data_[index(buffer)], maker});
}

std::byte* LiveBuffers::place(std::int64_t bytes, Category category, std::byte* planned) {
  return apart_ == nullptr ? planned : static_cast<std::byte*>(apart_->allocate(bytes, category));
}

void LiveBuffers::end_use(int buffer) {
  if (--uses_[index(buffer)] == 0 && live_[index(buffer)]) release(buffer);
}

void LiveBuffers::release(int buffer) {
  const StorageBuffer& info = program_.storage.buffers[index(buffer)];
  live_[index(buffer)] = false;
  in_use_[static_cast<std::size_t>(info.category)] -= info.bytes;
  padding_ -= padding_of(info.bytes);
  if (on_use)
    on_use({false, info.category, info.bytes, data_[index(buffer)], makers_[index(buffer)]});
  if (apart_ != nullptr) apart_->deallocate(data_[index(buffer)], info.bytes, info.category);
}

void LiveBuffers::release_all() {
  for (std::size_t b = 0; b < live_.size(); ++b) {
    if (live_[b]) release(static_cast<int>(b));
  }
}

void LiveBuffers::begin_scratch(Touched& touched) {
  in_use_[static_cast<std::size_t>(Category::workspace)] += touched.scratch_bytes;
  touched.scratch = place(touched.scratch_bytes, Category::workspace, touched.planned_scratch);
  if (on_use)
    on_use({true, Category::workspace, touched.scratch_bytes, touched.scratch, touched.node});
}

void LiveBuffers::end_scratch(Touched& touched) {
  in_use_[static_cast<std::size_t>(Category::workspace)] -= touched.scratch_bytes;
  if (on_use)
    on_use({false, Category::workspace, touched.scratch_bytes, touched.scratch, touched.node});
  if (apart_ != nullptr)
    apart_->deallocate(touched.scratch, touched.scratch_bytes, Category::workspace);
}

void LiveBuffers::note_peak(const Touched& touched) {
  for (std::size_t c = 0; c < kCategories; ++c) peak_[c] = std::max(peak_[c], in_use_[c]);
  const std::int64_t load = std::accumulate(in_use_.begin(), in_use_.end(), std::int64_t{0});
  if (load <= peak_load_) return;
  peak_load_ = load;
  at_peak_ = in_use_;
  padding_at_peak_ = padding_ + padding_of(touched.scratch_bytes);
}

}  // namespace ashlar
