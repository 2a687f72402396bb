#include "comm/staged.hpp"

#include <algorithm>

#include "ashlar/device_communicator.hpp"
#include "ashlar/device_memory.hpp"
#include "comm/arguments.hpp"
#include "comm/settle.hpp"
#include "comm/staged_work.hpp"

namespace ashlar {
namespace detail {

using Way = StagedWork::Way;

Buffer Staging::take(std::int64_t bytes) {
  const std::scoped_lock lock(mutex_);
  auto best = spare_.end();
  for (auto block = spare_.begin(); block != spare_.end(); ++block)
    if (block->bytes() >= bytes && (best == spare_.end() || block->bytes() < best->bytes()))
      best = block;
  if (best == spare_.end()) return {*memory_, bytes, Category::communication};
  Buffer block = std::move(*best);
  spare_.erase(best);
  return block;
}

void Staging::give_back(Buffer block) {
  const std::scoped_lock lock(mutex_);
  spare_.push_back(std::move(block));
}

StagedCommunicator::~StagedCommunicator() {
  for (const auto& state : in_flight_) {
    Work work(state);
    settle(work);
  }
}

std::shared_ptr<StagedWork> StagedCommunicator::prepare() {
  std::erase_if(in_flight_, [](const auto& work) { return work->done(); });
  return std::make_shared<StagedWork>(staging_);
}

template <typename Call>
Work StagedCommunicator::start(const std::shared_ptr<StagedWork>& work, StreamRef stream,
                               const Call& call) {
  work->copy_in(stream);
  work->carry(call());
  in_flight_.push_back(work);
  return Work(work);
}

Work StagedCommunicator::all_gather(std::span<const Transfer> flats, std::string_view label,
                                    StreamRef stream) {
  if (passes(stream)) return inner_.all_gather(flats, label, stream);
  const auto work = prepare();
  for (const Transfer& flat : flats) {
    check_all_gather(flat, size(), label);
    work->add(flat.send, Way::in);
    work->add(flat.recv, Way::out);
  }
  return start(work, stream, [&] {
    std::vector<Transfer> staged;
    for (std::size_t f = 0; f < flats.size(); ++f)
      staged.push_back({work->view(2 * f), work->view(2 * f + 1)});
    return inner_.all_gather(staged, label, staging_->copies());
  });
}

Work StagedCommunicator::reduce_scatter(std::span<const Transfer> flats,
                                        const ReduceOptions& options, std::string_view label,
                                        StreamRef stream) {
  if (passes(stream)) return inner_.reduce_scatter(flats, options, label, stream);
  const auto work = prepare();
  check_squares(options, flats.size(), label);
  for (const Transfer& flat : flats) {
    check_reduce_scatter(flat, size(), label);
    work->add(flat.send, Way::in);
    work->add(flat.recv, options.accumulate ? Way::both : Way::out);
  }
  const auto squares = static_cast<std::int64_t>(options.sum_of_squares.size());
  work->add({options.sum_of_squares.data(), DType::f64, {squares}}, Way::out);
  return start(work, stream, [&] {
    std::vector<Transfer> staged;
    for (std::size_t f = 0; f < flats.size(); ++f)
      staged.push_back({work->view(2 * f), work->view(2 * f + 1)});
    ReduceOptions inside = options;
    if (squares > 0) inside.sum_of_squares = work->view(2 * flats.size()).span<double>();
    return inner_.reduce_scatter(staged, inside, label, staging_->copies());
  });
}

Work StagedCommunicator::all_reduce(TensorView values, std::string_view label, StreamRef stream) {
  if (passes(stream)) return inner_.all_reduce(values, label, stream);
  check_in_place(values, Kind::all_reduce, label);
  const auto work = prepare();
  work->add(values, Way::both);
  return start(work, stream,
               [&] { return inner_.all_reduce(work->view(0), label, staging_->copies()); });
}

Work StagedCommunicator::broadcast(TensorView values, int root, std::string_view label,
                                   StreamRef stream) {
  if (passes(stream)) return inner_.broadcast(values, root, label, stream);
  check_peer(root, size(), Kind::broadcast, label);
  check_in_place(values, Kind::broadcast, label);
  const auto work = prepare();
  work->add(values, rank() == root ? Way::in : Way::out);
  return start(work, stream,
               [&] { return inner_.broadcast(work->view(0), root, label, staging_->copies()); });
}

Work StagedCommunicator::all_to_all(TensorView send, TensorView recv, std::string_view label,
                                    StreamRef stream) {
  if (passes(stream)) return inner_.all_to_all(send, recv, label, stream);
  check_all_to_all(send, recv, size(), label);
  const auto work = prepare();
  work->add(send, Way::in);
  work->add(recv, Way::out);
  return start(work, stream, [&] {
    return inner_.all_to_all(work->view(0), work->view(1), label, staging_->copies());
  });
}

Work StagedCommunicator::send(TensorView values, int destination, std::string_view label,
                              StreamRef stream) {
  if (passes(stream)) return inner_.send(values, destination, label, stream);
  check_other(destination, rank(), size(), Kind::send, label);
  check_in_place(values, Kind::send, label);
  const auto work = prepare();
  work->add(values, Way::in);
  return start(work, stream,
               [&] { return inner_.send(work->view(0), destination, label, staging_->copies()); });
}

Work StagedCommunicator::recv(TensorView values, int source, std::string_view label,
                              StreamRef stream) {
  if (passes(stream)) return inner_.recv(values, source, label, stream);
  check_other(source, rank(), size(), Kind::recv, label);
  check_in_place(values, Kind::recv, label);
  const auto work = prepare();
  work->add(values, Way::out);
  return start(work, stream,
               [&] { return inner_.recv(work->view(0), source, label, staging_->copies()); });
}

std::unique_ptr<Communicator> StagedCommunicator::split(int color, int key) {
  return std::make_unique<StagedCommunicator>(inner_.split(color, key), staging_);
}

namespace {

struct DeviceCache {
  explicit DeviceCache(Device device)
      : pages(device_pages(device)), cache(*pages, {.name = to_string(device) + " window"}) {}
  std::unique_ptr<PageSource> pages;
  CachingResource cache;
};

}  // namespace

std::shared_ptr<CachingResource> device_cache(Device device) {
  const auto cache = std::make_shared<DeviceCache>(device);
  return {cache, &cache->cache};
}

}  // namespace detail

std::unique_ptr<Communicator> staged_communicator(Communicator& inner, Device device,
                                                  std::shared_ptr<CachingResource> memory) {
  MemoryResource& host = device.type == DeviceType::cpu ? host_memory() : pinned_memory();
  return std::make_unique<detail::StagedCommunicator>(
      inner, std::make_shared<detail::Staging>(Device{}, detail::borrowed(host),
                                               memory ? memory : detail::device_cache(device),
                                               Stream(device)));
}

}  // namespace ashlar
