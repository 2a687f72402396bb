// Messages between two ranks over NCCL. They overtake collectives and each other, but NCCL runs
// what it is given in order; so each pair has, for each direction, a communicator of two ranks,
// connected by its first message, with streams of its own.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <utility>

#include "cuda/nccl_ids.hpp"
#include "cuda/nccl_place.hpp"
#include "cuda/nccl_work.hpp"

namespace ashlar::cuda {

class NcclMessages {
 public:
  /// @param ids outlives this
  NcclMessages(const NcclPlace& place, std::shared_ptr<NcclHealth> health, NcclIds& ids)
      : place_(place), health_(std::move(health)), ids_(ids) {}

  /// Starts a send or recv. It keeps the order of those of its pair and direction.
  void start(const std::shared_ptr<NcclWork>& work, detail::Kind kind, const detail::Flat& flat,
             int peer);
  void abort() noexcept;

 private:
  struct Lane {
    explicit Lane(Device device) : stream(device) {}
    std::mutex mutex;  // of group
    std::shared_ptr<NcclGroup> group;
    Stream stream;
    Stream host;  // last: where it connects and issues; it drains before the rest goes
  };
  Lane& lane(detail::Kind kind, int peer);
  std::shared_ptr<NcclGroup> connect(Lane& lane, detail::Kind kind, int peer);
  void issue(Lane& lane, NcclWork& work, detail::Kind kind, const detail::Flat& flat, int peer);

  NcclPlace place_;
  std::shared_ptr<NcclHealth> health_;
  NcclIds& ids_;
  std::map<std::pair<detail::Kind, int>, std::unique_ptr<Lane>> lanes_;
};

}  // namespace ashlar::cuda
