// How ranks with GPUs reach each other: which communicator they need.
#pragma once

#include <cstdint>

#include "ashlar/communicator.hpp"

namespace ashlar::detail {

/// Where a rank's step runs.
struct Seat {
  std::int64_t process = 0;
  std::int64_t device = 0;  // index of the GPU in its node
};

enum class Reach : std::uint8_t { shared_gpu, nccl, staged };

/// The same on every rank. Collective. @param mine this rank's seat
Reach reach_of(Communicator& ranks, Seat mine);

}  // namespace ashlar::detail
