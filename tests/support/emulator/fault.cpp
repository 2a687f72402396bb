#include "emulator/fault.hpp"

#include <signal.h>

#include <mutex>

#include "emulator/block.hpp"

namespace emulator {
namespace {

constinit thread_local Block* watched = nullptr;

/// The process's handler, ours while any launch runs.
struct Handler {
  std::mutex mutex;
  int launches = 0;
  struct sigaction before = {};
};

Handler& handler() {
  static Handler instance;
  return instance;
}

void on_fault(int signal, siginfo_t* info, void*) {
  if (watched != nullptr && watched->on_lane()) watched->fault(info->si_addr);
  ::sigaction(signal, &handler().before, nullptr);
}

}  // namespace

FaultScope::FaultScope(Block& block) {
  watched = &block;
  const std::scoped_lock lock(handler().mutex);
  if (handler().launches++ > 0) return;
  struct sigaction action = {};
  action.sa_sigaction = on_fault;
  action.sa_flags = SA_SIGINFO | SA_NODEFER;
  ::sigaction(SIGSEGV, &action, &handler().before);
}

FaultScope::~FaultScope() {
  watched = nullptr;
  const std::scoped_lock lock(handler().mutex);
  if (--handler().launches == 0) ::sigaction(SIGSEGV, &handler().before, nullptr);
}

}  // namespace emulator
