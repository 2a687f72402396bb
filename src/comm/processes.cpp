#include "comm/processes.hpp"

#include <fmt/format.h>
#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdlib>
#include <fstream>

namespace ashlar::detail {
namespace {

/// Equal for ranks that can see each other's processes. ASHLAR_HOST in the environment overrides
/// it.
std::string node_name() {
  if (const char* given = std::getenv("ASHLAR_HOST")) return given;
  std::string boot;
  std::ifstream("/proc/sys/kernel/random/boot_id") >> boot;
  std::array<char, 64> space{};  // ranks in different containers have different process numbers
  const auto length = ::readlink("/proc/self/ns/pid", space.data(), space.size() - 1);
  return boot + "/" + (length > 0 ? space.data() : "");
}

}  // namespace

Processes::Processes(const Exchange& exchange) {
  const std::string node = node_name();
  for (const std::string& text : exchange(fmt::format("{} {}", ::getpid(), node))) {
    const std::size_t space = text.find(' ');
    Peer peer{std::stoi(text), -1};
    if (text.substr(space + 1) == node)
      peer.watch = static_cast<int>(::syscall(SYS_pidfd_open, peer.id, 0));
    peers_.push_back(peer);
  }
}

Processes::~Processes() {
  for (const Peer& peer : peers_)
    if (peer.watch >= 0) ::close(peer.watch);
}

bool Processes::one_node() const {
  return std::all_of(peers_.begin(), peers_.end(), [](const Peer& p) { return p.watch >= 0; });
}

bool Processes::dead(int rank) const {
  if (!same_node(rank)) return false;
  pollfd watch{peers_[static_cast<std::size_t>(rank)].watch, POLLIN, 0};
  return ::poll(&watch, 1, 0) == 1;
}

void Processes::kill_others(int rank) const {
  for (int r = 0; r < static_cast<int>(peers_.size()); ++r)
    if (r != rank && same_node(r))
      ::syscall(SYS_pidfd_send_signal, peers_[static_cast<std::size_t>(r)].watch, SIGKILL, nullptr,
                0);
}

}  // namespace ashlar::detail
