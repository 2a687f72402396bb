// One collective of a StagedCommunicator on its way: its block, the collective inside, and what is
// copied back at the end.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "comm/staged.hpp"

namespace ashlar::detail {

class StagedWork final : public Work::State {
 public:
  explicit StagedWork(std::shared_ptr<Staging> staging) : staging_(std::move(staging)) {}
  ~StagedWork() override;

  enum class Way : std::uint8_t { in, out, both };
  /// Reserves room for a view. @return its number.
  std::size_t add(const TensorView& view, Way way);
  /// Takes the block and copies in what goes in, after what is enqueued on `stream`.
  void copy_in(StreamRef stream);
  /// The staged view, once copy_in was called.
  TensorView view(std::size_t number) const;
  void carry(Work inner) { inner_ = std::move(inner); }

  void wait() override;
  bool done() const override;

 private:
  struct Part {
    TensorView view;
    Way way;
    std::int64_t offset;
  };
  /// Begins to copy back, once. The collective is done.
  void copy_out() const;

  std::shared_ptr<Staging> staging_;
  std::vector<Part> parts_;
  std::int64_t bytes_ = 0;
  Buffer block_;
  Work inner_;
  mutable std::mutex mutex_;
  mutable bool copied_ = false;
  mutable Event copies_;  // the last ones enqueued
};

}  // namespace ashlar::detail
