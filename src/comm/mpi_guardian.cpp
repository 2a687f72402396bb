#include "comm/mpi_guardian.hpp"

#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <filesystem>

namespace ashlar::detail {
namespace {

constexpr unsigned kGraceSeconds = 5;
std::atomic<pid_t> guarded_rank{0};

void pass_on(int signal) {
  if (guarded_rank > 0) ::kill(guarded_rank, signal);
}

bool single_threaded() {
  const std::filesystem::directory_iterator tasks("/proc/self/task");
  return std::distance(begin(tasks), end(tasks)) == 1;
}

[[noreturn]] void guard(pid_t rank) {
  guarded_rank = rank;
  for (const int signal : {SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2, SIGCONT})
    std::signal(signal, pass_on);
  int status = 0;
  while (::waitpid(rank, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFEXITED(status)) ::_exit(WEXITSTATUS(status));
  ::sleep(kGraceSeconds);  // survivors end the program sooner
  ::_exit(128 + WTERMSIG(status));
}

}  // namespace

void stand_guard() {
  if (!single_threaded()) return;
  std::fflush(nullptr);
  const pid_t launched = ::getpid();
  const pid_t rank = ::fork();
  if (rank > 0) guard(rank);
  if (rank < 0) return;  // then without
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != launched) ::_exit(1);
}

}  // namespace ashlar::detail
