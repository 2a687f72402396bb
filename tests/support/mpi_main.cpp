// doctest under mpiexec: rank 0 speaks, other ranks only when they fail; all return the worst
// result.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <iostream>
#include <sstream>

#include "ashlar/communicator.hpp"

int main(int argc, char** argv) {
  ashlar::Communicator& world = ashlar::world();
  doctest::Context context(argc, argv);
  std::ostringstream quiet;
  if (world.rank() > 0) context.setCout(&quiet);
  std::int32_t failed = context.run() == 0 ? 0 : 1;
  if (failed != 0 && world.rank() > 0)
    std::cerr << "rank " << world.rank() << ":\n" << quiet.str() << std::flush;
  try {
    world.all_reduce({&failed, ashlar::DType::i32, {1}}, "result").wait();
  } catch (const ashlar::CommunicationError& error) {
    std::cerr << error.what() << std::endl;
    ashlar::abort_world(1);
  }
  return failed == 0 ? 0 : 1;
}
