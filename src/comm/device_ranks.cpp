#include "comm/device_ranks.hpp"

#include <unistd.h>

#include <algorithm>

#include "ashlar/device_communicator.hpp"
#include "comm/group_communicator.hpp"

namespace ashlar {
namespace detail {
namespace {

std::vector<std::int64_t> gather(Communicator& ranks, std::vector<std::int64_t> mine) {
  const auto each = static_cast<std::int64_t>(mine.size());
  std::vector<std::int64_t> all(mine.size() * static_cast<std::size_t>(ranks.size()));
  const Transfer transfer{{mine.data(), DType::i64, {each}},
                          {all.data(), DType::i64, {each * ranks.size()}}};
  ranks.all_gather({&transfer, 1}, "GPUs").wait();
  return all;
}

}  // namespace

Reach reach_of(Communicator& ranks, Seat mine) {
  const auto seats = gather(ranks, {mine.process, mine.device});
  bool together = true, alone = true;
  for (int r = 0; r < ranks.size(); ++r) {
    if (r == ranks.rank()) continue;
    const auto at = static_cast<std::size_t>(2 * r);
    const bool same_gpu = ranks.same_node(r) && seats[at + 1] == mine.device;
    together = together && same_gpu && seats[at] == mine.process;
    alone = alone && !same_gpu;
  }
  const auto views = gather(ranks, {together ? 1 : 0, alone ? 1 : 0});
  bool all_together = true, all_alone = true;
  for (std::size_t i = 0; i < views.size(); i += 2) {
    all_together = all_together && views[i] != 0;
    all_alone = all_alone && views[i + 1] != 0;
  }
  return all_together ? Reach::shared_gpu : all_alone ? Reach::nccl : Reach::staged;
}

}  // namespace detail

namespace {

std::unique_ptr<Communicator> connect(Communicator& ranks, Device device,
                                      const std::shared_ptr<CachingResource>& memory) {
  switch (detail::reach_of(ranks, {::getpid(), device.index})) {
    case detail::Reach::shared_gpu:
      return shared_gpu_communicator(ranks, device, memory);
    case detail::Reach::nccl:
      return nccl_communicator(ranks, device, memory);
    case detail::Reach::staged:
      break;
  }
  return staged_communicator(ranks, device, memory);
}

}  // namespace

std::unique_ptr<Communicator> device_communicator(Communicator& ranks, Device device,
                                                  std::shared_ptr<CachingResource> memory) {
  std::unique_ptr<Communicator> communicator = connect(ranks, device, memory);
  if (const auto* group = dynamic_cast<const detail::GroupCommunicator*>(&ranks))
    communicator->set_timeout(group->timeout());
  return communicator;
}

}  // namespace ashlar
