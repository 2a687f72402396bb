#include "emulator/intrinsics.hpp"

namespace emulator {

unsigned ballot(std::string_view call, unsigned mask, bool predicate, Site site) {
  const std::uint64_t* brought = Block::current().meet_warp(call, mask, predicate ? 1 : 0, site);
  unsigned votes = 0;
  for (unsigned rest = mask; rest != 0; rest &= rest - 1) {
    const int lane = std::countr_zero(rest);
    votes |= static_cast<unsigned>(brought[lane]) << lane;
  }
  return votes;
}

}  // namespace emulator
