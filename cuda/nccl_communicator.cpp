#include "cuda/nccl_communicator.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <functional>
#include <utility>

#include "ashlar/device_memory.hpp"
#include "comm/arguments.hpp"
#include "comm/settle.hpp"

namespace ashlar::cuda {

using detail::Kind;
using detail::Operation;
using detail::Pass;
using detail::Range;

namespace {

constexpr std::int64_t kHostBytes = 8;

/// The same on one machine since it was started, whatever container names it.
std::uint64_t this_host() {
  std::array<char, 256> name{};
  ::gethostname(name.data(), name.size() - 1);
  std::string text = name.data();
  std::ifstream("/proc/sys/kernel/random/boot_id") >> text;
  return std::hash<std::string>()(text);
}

ncclUniqueId meet(const NcclLibrary& library, NcclIds& ids, int rank, int size) {
  ncclUniqueId id{};
  if (rank != 0) return ids.take(0);
  if (library.get_unique_id(&id) != ncclSuccess)
    throw CommunicationError("NCCL made no identifier");
  for (int r = 1; r < size; ++r) ids.give(r, id);
  return id;
}

}  // namespace

NcclCommunicator::NcclCommunicator(const NcclPlace& place, std::unique_ptr<NcclIds> ids, int rank,
                                   int size)
    : NcclCommunicator(place, std::move(ids), std::make_shared<NcclHealth>(rank, place.timeout),
                       nullptr, rank, size) {}

NcclCommunicator::NcclCommunicator(const NcclPlace& place, std::unique_ptr<NcclIds> ids,
                                   std::shared_ptr<NcclGroup> group)
    : NcclCommunicator(place, std::move(ids),
                       std::make_shared<NcclHealth>(group->rank(), place.timeout), group,
                       group->rank(), group->size()) {}

NcclCommunicator::NcclCommunicator(const NcclPlace& place, std::unique_ptr<NcclIds> ids,
                                   std::shared_ptr<NcclHealth> health,
                                   std::shared_ptr<NcclGroup> group, int rank, int size)
    : place_(place),
      ids_(std::move(ids)),
      health_(std::move(health)),
      group_(std::move(group)),
      rank_(rank),
      size_(size),
      own_stream_(place.make_stream(place.device)),
      stream_(own_stream_.get()),
      sums_(std::in_place, rank, size, place, stream_),
      messages_(place, health_, *ids_),
      hosts_(static_cast<std::size_t>(size)) {
  ids_->set_timeout(place.timeout);
  if (group_) {
    group_->adopt(health_);
  } else {
    place.make_current();
    group_ = NcclGroup::connect(place.library, health_, meet(place.library, *ids_, rank, size),
                                rank, size);
  }
  learn_hosts();
}

NcclCommunicator::~NcclCommunicator() {
  for (const auto& state : in_flight_) {
    Work work(state);
    detail::settle(work);
  }
  sums_.reset();
  try {
    stream_.synchronize();
  } catch (const std::exception&) {  // it was said by the work that failed
  }
  place_.memory->retire(stream_);
}

void NcclCommunicator::learn_hosts() {
  const std::uint64_t mine = this_host();
  std::byte* all = sums_->small();
  std::byte* own = all + rank_ * kHostBytes;
  copy_async(own, &mine, kHostBytes, stream_);
  stream_.synchronize();
  Operation operation;
  operation.seal(Kind::all_gather, 0, "hosts", -1);
  NcclWork work(std::make_shared<NcclHealth>(rank_, place_.timeout), operation.header, Event());
  group_->issue([&](const NcclLibrary& nccl, ncclComm_t comm) {
    group_->accept(nccl.all_gather(own, all, kHostBytes, ncclUint8, comm, place_.native(stream_)));
  });
  work.issued(group_, stream_.record());
  work.wait();
  copy_async(hosts_.data(), all, size_ * kHostBytes, stream_);
  stream_.synchronize();
}

Work NcclCommunicator::all_gather(std::span<const Transfer> flats, std::string_view label,
                                  StreamRef stream) {
  Operation operation;
  for (const Transfer& flat : flats)
    operation.flats.push_back(detail::check_all_gather(flat, size_, label));
  return start(operation, Kind::all_gather, label, -1, stream);
}

Work NcclCommunicator::reduce_scatter(std::span<const Transfer> flats, const ReduceOptions& options,
                                      std::string_view label, StreamRef stream) {
  Operation operation;
  for (const Transfer& flat : flats)
    operation.flats.push_back(detail::check_reduce_scatter(flat, size_, label));
  detail::check_squares(options, flats.size(), label);
  operation.options = options;
  return start(operation, Kind::reduce_scatter, label, -1, stream);
}

Work NcclCommunicator::all_reduce(TensorView values, std::string_view label, StreamRef stream) {
  Operation operation;
  operation.flats.push_back(detail::check_in_place(values, Kind::all_reduce, label));
  return start(operation, Kind::all_reduce, label, -1, stream);
}

Work NcclCommunicator::broadcast(TensorView values, int root, std::string_view label,
                                 StreamRef stream) {
  detail::check_peer(root, size_, Kind::broadcast, label);
  Operation operation;
  operation.flats.push_back(detail::check_in_place(values, Kind::broadcast, label));
  return start(operation, Kind::broadcast, label, root, stream);
}

Work NcclCommunicator::all_to_all(TensorView send, TensorView recv, std::string_view label,
                                  StreamRef stream) {
  Operation operation;
  operation.flats.push_back(detail::check_all_to_all(send, recv, size_, label));
  return start(operation, Kind::all_to_all, label, -1, stream);
}

Work NcclCommunicator::send(TensorView values, int destination, std::string_view label,
                            StreamRef stream) {
  detail::check_other(destination, rank_, size_, Kind::send, label);
  Operation operation;
  operation.flats.push_back(detail::check_in_place(values, Kind::send, label));
  return start(operation, Kind::send, label, destination, stream);
}

Work NcclCommunicator::recv(TensorView values, int source, std::string_view label,
                            StreamRef stream) {
  detail::check_other(source, rank_, size_, Kind::recv, label);
  Operation operation;
  operation.flats.push_back(detail::check_in_place(values, Kind::recv, label));
  return start(operation, Kind::recv, label, source, stream);
}

void NcclCommunicator::barrier(std::string_view label) {
  Operation operation;
  start(operation, Kind::barrier, label, -1, {}).wait();
}

std::unique_ptr<Communicator> NcclCommunicator::split(int color, int key) {
  if (color < 0) throw InvalidArgument(fmt::format("NCCL splits by colors from 0, not {}", color));
  NcclPlace place = place_;
  place.timeout = health_->timeout();
  std::shared_ptr<NcclGroup> group = group_->split(color, key);
  const int rank = group->rank();
  return std::unique_ptr<Communicator>(
      new NcclCommunicator(place, ids_->split(color, key, rank), std::move(group)));
}

std::vector<std::string> NcclCommunicator::recent() const {
  for (const auto& work : in_flight_) work->done();  // which takes note
  std::vector<std::string> lines;
  for (const detail::Record& record : health_->recorder().records())
    lines.push_back(describe(record));
  return lines;
}

void NcclCommunicator::set_timeout(std::chrono::milliseconds timeout) {
  if (timeout.count() <= 0) throw InvalidArgument("a communicator's timeout must be positive");
  health_->set_timeout(timeout);
  ids_->set_timeout(timeout);
}

void NcclCommunicator::abort(std::string_view reason) noexcept {
  health_->fail(fmt::format("rank {} failed: {}", rank_, reason));
  ids_->abort(reason);
  group_->abort();
  messages_.abort();
}

Work NcclCommunicator::start(Operation& operation, Kind kind, std::string_view label, int peer,
                             StreamRef stream) {
  if (detail::is_recording(stream)) return record(operation, kind, label, peer, stream);
  std::erase_if(in_flight_, [](const auto& work) { return work->done(); });
  const bool message = detail::between_two(kind);
  operation.seal(kind, message ? ++posted_ : ++collectives_, label, peer);
  const auto work = std::make_shared<NcclWork>(health_, operation.header, stream.record());
  in_flight_.push_back(work);
  try {
    require_health();
    if (message) {
      messages_.start(work, kind, operation.flats[0], peer);
    } else {
      stream_.wait(work->ready());
      issue(operation);
      work->issued(group_, stream_.record());
    }
    if (kind == Kind::send)
      count(kind, operation.flats[0].count * size_of(operation.flats[0].send_type));
  } catch (const std::exception& error) {
    work->fail(error.what());
    group_->abort();
  }
  return Work(work);
}

void NcclCommunicator::require_health() const {
  if (health_->failed()) throw CommunicationError("the group failed before: " + health_->reason());
}

/// Collectives that a stream keeps. What they send is counted when they run.
class NcclCommunicator::RecordedWork final : public Work::State {
 public:
  RecordedWork(NcclCommunicator& by, const detail::Header& header, const SentBytes& sent,
               Event finished)
      : by_(by), header_(header), sent_(sent), finished_(std::move(finished)) {}

  void wait() override { by_.require_health(); }
  bool done() const override { return true; }
  void join(StreamRef stream) override { stream.wait(finished_); }
  std::shared_ptr<State> replayed(const Event& before, const Event& after) override {
    return by_.replay(header_, sent_, before, after);
  }

 private:
  NcclCommunicator& by_;
  detail::Header header_;
  SentBytes sent_;
  Event finished_;
};

Work NcclCommunicator::record(Operation& operation, Kind kind, std::string_view label, int peer,
                              StreamRef stream) {
  operation.seal(kind, 0, label, peer);
  if (detail::between_two(kind))
    throw InvalidArgument(
        fmt::format("{}: messages between two are not recorded", describe(operation.header)));
  require_health();
  const SentBytes before = sent_;
  stream_.wait(stream.record());
  try {
    issue(operation);
  } catch (const CommunicationError& error) {
    throw CommunicationError(fmt::format("{} on rank {}, as it was recorded: {}",
                                         describe(operation.header), rank_, error.what()));
  }
  SentBytes sent{};
  std::ranges::transform(sent_, before, sent.begin(), std::minus<>());
  sent_ = before;
  return Work(std::make_shared<RecordedWork>(*this, operation.header, sent, stream_.record()));
}

std::shared_ptr<NcclWork> NcclCommunicator::replay(detail::Header header, const SentBytes& sent,
                                                   const Event& before, const Event& after) {
  header.sequence = ++collectives_;
  std::ranges::transform(sent_, sent, sent_.begin(), std::plus<>());
  const auto work = std::make_shared<NcclWork>(health_, header, before, true);
  work->issued(group_, after);
  return work;
}

void NcclCommunicator::issue(const Operation& operation) {
  std::vector<Pass> sums;
  std::vector<Pass> copies;
  const auto flush = [&] {
    if (!sums.empty()) count(operation.header.kind, sums_->run(*group_, sums, operation.options));
    if (!copies.empty())
      group_->issue([&](const NcclLibrary& nccl, ncclComm_t comm) {
        for (const Pass& pass : copies) copy(nccl, comm, pass);
      });
    sums.clear();
    copies.clear();
  };
  for_each_pass(
      operation, 0, operation.flats.size(), size_,
      [&](const Pass& pass) { (pass.sums() ? sums : copies).push_back(pass); }, flush);
  flush();
  if (operation.header.kind == Kind::barrier)
    group_->issue([&](const NcclLibrary& nccl, ncclComm_t comm) {
      group_->accept(nccl.all_gather(sums_->small() + rank_, sums_->small(), 1, ncclUint8, comm,
                                     place_.native(stream_)));
    });
}

void NcclCommunicator::copy(const NcclLibrary& nccl, ncclComm_t comm, const Pass& pass) {
  const auto stream = place_.native(stream_);
  const std::int64_t element = pass.send_size();
  if (pass.kind() == Kind::all_to_all) return all_to_all(nccl, comm, pass);
  if (pass.kind() == Kind::all_gather) {
    const std::int64_t bytes = pass.flat().count * element;
    count(pass.kind(), (size_ - 1) * bytes);
    if (bytes > 0)
      group_->accept(nccl.all_gather(pass.flat().send, pass.flat().recv,
                                     static_cast<std::size_t>(bytes), ncclUint8, comm, stream));
    return;
  }
  for (int source = 0; source < size_; ++source) {
    const std::int64_t bytes = pass.read(source, rank_).count * element;
    std::byte* values = pass.flat().recv + pass.landing(source) * element;
    if (source == rank_) count(pass.kind(), (size_ - 1) * bytes);
    if (bytes > 0)
      group_->accept(nccl.broadcast(values, values, static_cast<std::size_t>(bytes), ncclUint8,
                                    source, comm, stream));
  }
}

void NcclCommunicator::all_to_all(const NcclLibrary& nccl, ncclComm_t comm, const Pass& pass) {
  const auto stream = place_.native(stream_);
  const std::int64_t element = pass.send_size();
  const std::int64_t bytes = pass.flat().count * element;
  if (bytes == 0) return;
  for (int peer = 0; peer < size_; ++peer) {
    const std::byte* out = pass.flat().send + pass.read(rank_, peer).first * element;
    std::byte* in = pass.flat().recv + pass.landing(peer) * element;
    if (peer == rank_) {
      copy_async(in, out, bytes, stream_);
      continue;
    }
    count(pass.kind(), bytes);
    const auto size = static_cast<std::size_t>(bytes);
    group_->accept(nccl.send(out, size, ncclUint8, peer, comm, stream));
    group_->accept(nccl.recv(in, size, ncclUint8, peer, comm, stream));
  }
}

}  // namespace ashlar::cuda
