// The world of a build without MPI: one rank.
#include <cstdlib>

#include "ashlar/communicator.hpp"

namespace ashlar {

Communicator& world() {
  static const std::unique_ptr<Communicator> self = self_communicator();
  return *self;
}

void abort_world(int code) { std::_Exit(code); }

}  // namespace ashlar
