// One rank of a group in which rank 1 (or 0) fails as the first argument says. Ranks print what
// they are told; test_failures.cpp starts this under mpiexec and reads it.
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string_view>
#include <thread>

#include "ashlar/run_main.hpp"
#include "comm/failures.hpp"

namespace ashlar {
namespace {

using Clock = std::chrono::steady_clock;
Clock::time_point step_began = Clock::now();

detail::Fault fault_named(std::string_view name) {
  using Action = detail::Fault::Action;
  if (name == "dies" || name == "first_dies" || name == "dies_far_away")
    return {Action::dies, 5, {}};
  if (name == "stops") return {Action::stops, 5, {}};
  if (name == "throws") return {Action::throws, 5, {}};
  return {};
}

void run(Communicator& communicator, std::string_view name) {
  if (name == "diverges" && communicator.rank() == 1)
    communicator.barrier("elsewhere");
  else if (name == "leaves" && communicator.rank() == 1)
    return;
  else
    while (true) {
      step_began = Clock::now();
      test::step(communicator);
    }
}

/// Rank 1 finds its input unusable; the others do not know.
int refuse(Communicator& communicator) {
  if (communicator.rank() == 1) throw InvalidArgument("unusable on rank 1 alone");
  while (true) test::step(communicator);
}

/// A rank dies within a step that the others have begun too, but for a barrier's delay.
int report(int rank, const char* text) {
  const std::chrono::duration<double> waited = Clock::now() - step_began;
  std::printf("rank %d: %s\nrank %d waited %.3f s\n", rank, text, rank, waited.count());
  std::fflush(stdout);
  std::this_thread::sleep_for(std::chrono::milliseconds(500));
  abort_world(3);
}

}  // namespace
}  // namespace ashlar

int main(int, char** argv) {
  using namespace ashlar;
  const std::string_view name = argv[1];
  if (name == "dies_far_away")  // every rank takes itself to be alone on its node
    ::setenv("ASHLAR_HOST", std::to_string(::getpid()).c_str(), 1);
  if (name == "refuses") return run_main("program", [] { return refuse(world()); });
  Communicator& group = world();
  group.set_timeout(std::chrono::milliseconds(name == "stops" ? 700 : 30'000));
  const int failing = name == "first_dies" ? 0 : 1;
  detail::FaultCommunicator faulty(group,
                                   group.rank() == failing ? fault_named(name) : detail::Fault{});
  try {
    run(faulty, name);
  } catch (const CommunicationError& error) {
    return report(group.rank(), error.what());
  } catch (const Error& error) {
    group.abort(error.what());
    return report(group.rank(), error.what());
  }
  return 0;
}
