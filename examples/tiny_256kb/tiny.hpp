// A small CNN whose training fits 262,144 bytes: parameters, gradients, optimizer state,
// activations, workspace and input batch.
#pragma once

#include <memory>
#include <span>

#include "fashion_mnist/training.hpp"
#include "tiny_256kb/arena.hpp"

namespace tiny {

inline constexpr std::int64_t kArenaBytes = 262'144;

/// Four convolutions, the last of which covers what is left of the image: no matrix product, so
/// Ashlar's own kernels are all that runs. images (N, 28, 28, 1) -> logits (N, 10).
ashlar::Value network(ashlar::Tracer& tracer, ashlar::Value images);

/// What the example trains with unless told otherwise.
vision::Recipe recipe();

/// The network in training with all of its bytes in `arena`, one thread, nothing allocated once it
/// is made.
class Tiny {
 public:
  /// @param arena aligned to ashlar::kAlignment; outlives this, as does the data
  /// @throws OutOfMemory, InvalidArgument with the planned bytes when they do not fit.
  Tiny(std::span<std::byte> arena, const vision::FashionMnist& data, vision::Recipe recipe);

  vision::Training& training() { return training_; }
  /// Bytes of the arena in use.
  std::int64_t used() const { return arena_.used(); }

 private:
  BlockResource block_;
  ashlar::ArenaResource arena_;
  std::unique_ptr<ashlar::Communicator> self_;
  ArenaCommunicator rank_;
  vision::Training training_;
};

}  // namespace tiny
