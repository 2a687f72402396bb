#include "emulator/fault.hpp"

#include <signal.h>

#include "emulator/block.hpp"

namespace emulator {
namespace {

constinit thread_local Block* watched = nullptr;
struct sigaction before;

void on_fault(int signal, siginfo_t* info, void*) {
  if (watched != nullptr && watched->on_lane()) watched->fault(info->si_addr);
  ::sigaction(signal, &before, nullptr);
}

void install() {
  static const bool installed = [] {
    struct sigaction action = {};
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_NODEFER;
    return ::sigaction(SIGSEGV, &action, &before) == 0;
  }();
  static_cast<void>(installed);
}

}  // namespace

FaultScope::FaultScope(Block& block) {
  install();
  watched = &block;
}
FaultScope::~FaultScope() { watched = nullptr; }

}  // namespace emulator
