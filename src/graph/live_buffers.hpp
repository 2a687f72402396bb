// What of a Program's buffers is in use as a run goes, counted by references: a buffer is in use
// from the first instruction that touches it until all its uses have happened. Knows neither
// lifetimes nor offsets, so plans can be checked against it.
#pragma once

#include <functional>

#include "graph/program.hpp"

namespace ashlar {

/// A buffer comes into use, or goes.
struct BufferUse {
  bool begins = false;
  Category category = Category::activation;
  std::int64_t bytes = 0;
  const std::byte* data = nullptr;
  const Node* maker = nullptr;  // the node that begins the use; null for data inputs
};

class LiveBuffers {
 public:
  /// @param address of an operand in the arenas
  LiveBuffers(const Program& program, const std::function<std::byte*(const Operand&)>& address);
  ~LiveBuffers();
  LiveBuffers(const LiveBuffers&) = delete;
  LiveBuffers& operator=(const LiveBuffers&) = delete;

  /// Nothing is in use, all peaks are zero, all of the Program is to come.
  void begin_run();
  /// Data inputs come into use. @param again the body has run before
  void begin_body(bool again);
  /// What the prologue made for every run of the body is used no more.
  void end_last_body();
  void begin(int step);
  void end(int step);

  const PerCategory<std::int64_t>& in_use() const { return in_use_; }
  const PerCategory<std::int64_t>& peak() const { return peak_; }
  const PerCategory<std::int64_t>& at_peak() const { return at_peak_; }
  std::int64_t peak_load() const { return peak_load_; }
  std::int64_t padding_at_peak() const { return padding_at_peak_; }

  /// From now on every transient and workspace is allocated when its use begins and freed when it
  /// ends. Null: they lie in the arenas.
  void allocate_apart(MemoryResource* resource);
  bool apart() const { return apart_ != nullptr; }
  /// Where a transient lies, and a step's workspace, while they are in use.
  std::byte* data(int buffer) const { return data_[static_cast<std::size_t>(buffer)]; }
  std::byte* workspace(int step) const { return touched_[static_cast<std::size_t>(step)].scratch; }

  std::function<void(const BufferUse&)> on_use;

 private:
  struct Touched {
    std::vector<int> buffers;  // once per operand
    const Node* node = nullptr;
    std::byte* planned_scratch = nullptr;  // in the arena
    std::byte* scratch = nullptr;
    std::int64_t scratch_bytes = 0;
  };

  void count(int first, int last);
  void find_carried();
  bool is_state(int buffer) const;
  void begin_buffer(int buffer, const Node* maker);
  void end_use(int buffer);
  void release(int buffer);
  void release_all();
  std::byte* place(std::int64_t bytes, Category category, std::byte* planned);
  void begin_scratch(Touched& touched);
  void end_scratch(Touched& touched);
  void note_peak(const Touched& touched);

  const Program& program_;
  std::vector<Touched> touched_;     // by step
  std::vector<int> uses_;            // by storage buffer: touches left
  std::vector<bool> live_;           // by storage buffer
  std::vector<bool> carried_;        // by storage buffer: made in the prologue for later
  std::vector<const Node*> makers_;  // by storage buffer, while in use
  std::vector<std::byte*> planned_;  // by storage buffer: in the arena
  std::vector<std::byte*> data_;     // by storage buffer, while in use
  PerCategory<std::int64_t> in_use_{}, peak_{}, at_peak_{};
  std::int64_t peak_load_ = 0;
  std::int64_t padding_ = 0, padding_at_peak_ = 0;
  MemoryResource* apart_ = nullptr;
};

}  // namespace ashlar
