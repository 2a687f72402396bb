// The processes that the ranks of a program are: which node each runs on and whether it still
// lives.
#pragma once

#include <string>
#include <vector>

#include "comm/transport.hpp"

namespace ashlar::detail {

class Processes {
 public:
  explicit Processes(const Exchange& exchange);
  ~Processes();
  Processes(const Processes&) = delete;
  Processes& operator=(const Processes&) = delete;

  bool same_node(int rank) const { return peers_[static_cast<std::size_t>(rank)].watch >= 0; }
  bool one_node() const;
  int id(int rank) const { return peers_[static_cast<std::size_t>(rank)].id; }
  /// For a rank of this node: whether its process has ended, however.
  bool dead(int rank) const;
  /// Ends the other ranks of this node.
  void kill_others(int rank) const;

 private:
  struct Peer {
    int id;
    int watch;  // a pidfd, on this node only
  };
  std::vector<Peer> peers_;
};

}  // namespace ashlar::detail
