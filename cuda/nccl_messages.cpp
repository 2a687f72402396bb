#include "cuda/nccl_messages.hpp"

namespace ashlar::cuda {

using detail::Kind;

void NcclMessages::start(const std::shared_ptr<NcclWork>& work, Kind kind, const detail::Flat& flat,
                         int peer) {
  Lane& way = lane(kind, peer);
  StreamRef(way.host).enqueue([this, &way, work, kind, flat, peer] {
    try {
      issue(way, *work, kind, flat, peer);
    } catch (const std::exception& error) {
      work->fail(error.what());
      if (way.group) way.group->abort();
    }
  });
}

void NcclMessages::abort() noexcept {
  for (const auto& [key, way] : lanes_) {
    const std::scoped_lock lock(way->mutex);
    if (way->group) way->group->abort();
  }
}

NcclMessages::Lane& NcclMessages::lane(Kind kind, int peer) {
  std::unique_ptr<Lane>& way = lanes_[{kind, peer}];
  if (!way) way = std::make_unique<Lane>(place_.device);
  return *way;
}

// The sender is rank 0 of the pair and makes the identifier.
std::shared_ptr<NcclGroup> NcclMessages::connect(Lane& way, Kind kind, int peer) {
  if (health_->failed()) throw CommunicationError("the group failed before: " + health_->reason());
  if (way.group) return way.group;
  place_.make_current();
  ncclUniqueId id{};
  const bool sends = kind == Kind::send;
  if (sends) {
    if (place_.library.get_unique_id(&id) != ncclSuccess)
      throw CommunicationError("NCCL made no identifier");
    ids_.give(peer, id);
  } else {
    id = ids_.take(peer);
  }
  auto group = NcclGroup::connect(place_.library, health_, id, sends ? 0 : 1, 2);
  const std::scoped_lock lock(way.mutex);
  way.group = group;
  return group;
}

void NcclMessages::issue(Lane& way, NcclWork& work, Kind kind, const detail::Flat& flat, int peer) {
  const std::shared_ptr<NcclGroup> group = connect(way, kind, peer);
  const StreamRef ours(way.stream);
  ours.wait(work.ready());
  const auto bytes = static_cast<std::size_t>(flat.count * size_of(flat.send_type));
  const auto stream = place_.native(ours);
  const auto call = [&](const NcclLibrary& nccl, ncclComm_t comm) {
    group->accept(kind == Kind::send ? nccl.send(flat.send, bytes, ncclUint8, 1, comm, stream)
                                     : nccl.recv(flat.recv, bytes, ncclUint8, 0, comm, stream));
  };
  if (bytes > 0) group->issue(call);
  work.issued(group, ours.record());
}

}  // namespace ashlar::cuda
