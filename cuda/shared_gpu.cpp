#include "cuda/shared_gpu.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <exception>

#include "ashlar/device_memory.hpp"
#include "comm/agreement.hpp"
#include "comm/arguments.hpp"
#include "cuda/kernels/reduce_parts.hpp"
#include "runtime/stream_state.hpp"

namespace ashlar::cuda {

using detail::Kind;
using detail::Operation;
using detail::Pass;
using detail::Range;

namespace {

struct SharedGpuWork final : Work::State {
  void require_success() const {
    if (!error.empty()) throw CommunicationError(error);
  }
  void wait() override {
    require_success();
    if (!recorded) finished.wait();
  }
  bool done() const override { return recorded || finished.done(); }
  void join(StreamRef stream) override {
    require_success();
    stream.wait(finished);
  }

  Event finished;
  bool recorded = false;
  std::string error;
};

/// Rank 0 makes it; the others copy its pointer before it goes on.
std::shared_ptr<Meeting> open_meeting(Communicator& ranks) {
  std::shared_ptr<Meeting> meeting;
  if (ranks.rank() == 0) meeting = std::make_shared<Meeting>(ranks.size());
  const auto address = reinterpret_cast<std::uintptr_t>(&meeting);
  const std::string first = detail::exchange(ranks, fmt::format("{}", address), "meeting")[0];
  if (ranks.rank() != 0) meeting = *reinterpret_cast<std::shared_ptr<Meeting>*>(std::stoull(first));
  detail::exchange(ranks, "taken", "meeting");
  return meeting;
}

[[noreturn]] void refuse_message(std::string_view what) {
  throw InvalidArgument(
      fmt::format("{}: ranks that share a GPU have no messages between two; use all_to_all", what));
}

}  // namespace

SharedGpuCommunicator::SharedGpuCommunicator(Communicator& inner, SharedGpuPlace place)
    : ForwardingCommunicator(inner), place_(std::move(place)), meeting_(open_meeting(inner)) {
  const detail::ReductionScratch scratch(size(), place_.scratch_bytes);
  parts_ = detail::take_scratch(scratch.parts, *place_.memory, place_.stream);
  partials_ = detail::take_scratch(scratch.partials, *place_.memory, place_.stream);
}

SharedGpuCommunicator::SharedGpuCommunicator(std::unique_ptr<Communicator> inner,
                                             SharedGpuPlace place)
    : SharedGpuCommunicator(*inner, std::move(place)) {
  owned_ = std::move(inner);
}

SharedGpuCommunicator::~SharedGpuCommunicator() {
  meeting_->fail(fmt::format("rank {} has left", rank()));
  try {
    place_.stream.synchronize();
  } catch (const std::exception&) {  // it was said by the call that failed
  }
}

Work SharedGpuCommunicator::all_gather(std::span<const Transfer> flats, std::string_view label,
                                       StreamRef stream) {
  if (passes(stream)) return inner_.all_gather(flats, label, stream);
  Operation operation;
  for (const Transfer& flat : flats)
    operation.flats.push_back(detail::check_all_gather(flat, size(), label));
  return start(operation, Kind::all_gather, label, -1, stream);
}

Work SharedGpuCommunicator::reduce_scatter(std::span<const Transfer> flats,
                                           const ReduceOptions& options, std::string_view label,
                                           StreamRef stream) {
  if (passes(stream)) return inner_.reduce_scatter(flats, options, label, stream);
  Operation operation;
  for (const Transfer& flat : flats)
    operation.flats.push_back(detail::check_reduce_scatter(flat, size(), label));
  detail::check_squares(options, flats.size(), label);
  operation.options = options;
  return start(operation, Kind::reduce_scatter, label, -1, stream);
}

Work SharedGpuCommunicator::all_reduce(TensorView values, std::string_view label,
                                       StreamRef stream) {
  if (passes(stream)) return inner_.all_reduce(values, label, stream);
  Operation operation;
  operation.flats.push_back(detail::check_in_place(values, Kind::all_reduce, label));
  return start(operation, Kind::all_reduce, label, -1, stream);
}

Work SharedGpuCommunicator::broadcast(TensorView values, int root, std::string_view label,
                                      StreamRef stream) {
  if (passes(stream)) return inner_.broadcast(values, root, label, stream);
  detail::check_peer(root, size(), Kind::broadcast, label);
  Operation operation;
  operation.flats.push_back(detail::check_in_place(values, Kind::broadcast, label));
  return start(operation, Kind::broadcast, label, root, stream);
}

Work SharedGpuCommunicator::all_to_all(TensorView send, TensorView recv, std::string_view label,
                                       StreamRef stream) {
  if (passes(stream)) return inner_.all_to_all(send, recv, label, stream);
  Operation operation;
  operation.flats.push_back(detail::check_all_to_all(send, recv, size(), label));
  return start(operation, Kind::all_to_all, label, -1, stream);
}

Work SharedGpuCommunicator::send(TensorView values, int destination, std::string_view label,
                                 StreamRef stream) {
  if (!passes(stream)) refuse_message("send");
  return inner_.send(values, destination, label, stream);
}

Work SharedGpuCommunicator::recv(TensorView values, int source, std::string_view label,
                                 StreamRef stream) {
  if (!passes(stream)) refuse_message("recv");
  return inner_.recv(values, source, label, stream);
}

std::unique_ptr<Communicator> SharedGpuCommunicator::split(int color, int key) {
  auto part = std::unique_ptr<SharedGpuCommunicator>(
      new SharedGpuCommunicator(inner_.split(color, key), place_));
  part->timeout_ = timeout_;
  return part;
}

SentBytes SharedGpuCommunicator::sent_bytes() const {
  SentBytes sent = inner_.sent_bytes();
  std::ranges::transform(sent, sent_, sent.begin(), std::plus<>());
  return sent;
}

std::vector<std::string> SharedGpuCommunicator::recent() const {
  std::vector<std::string> lines = inner_.recent();
  for (const detail::Record& record : recorder_.records()) lines.push_back(describe(record));
  return lines;
}

void SharedGpuCommunicator::set_timeout(std::chrono::milliseconds timeout) {
  inner_.set_timeout(timeout);
  timeout_ = timeout;
}

void SharedGpuCommunicator::abort(std::string_view reason) noexcept {
  meeting_->fail(fmt::format("rank {} failed: {}", rank(), reason));
  inner_.abort(reason);
}

Work SharedGpuCommunicator::start(Operation& operation, Kind kind, std::string_view label, int peer,
                                  StreamRef stream) {
  operation.seal(kind, ++collectives_, label, peer);
  const auto work = std::make_shared<SharedGpuWork>();
  const std::size_t record = recorder_.queue(operation.header);
  recorder_.start(record);
  try {
    work->finished = run(operation, stream);
    work->recorded = detail::is_recording(stream);
  } catch (const std::exception& error) {
    work->error = fmt::format("{} (#{}) on rank {}: {}", describe(operation.header),
                              operation.header.sequence, rank(), error.what());
    meeting_->fail(work->error);
    try {
      place_.stream.synchronize();
    } catch (const std::exception&) {  // the work says what came first
    }
    meeting_->settle(rank());
  }
  recorder_.end(record, !work->error.empty());
  return Work(work);
}

Event SharedGpuCommunicator::run(const Operation& operation, StreamRef stream) {
  meet(&operation, stream.record(), false);
  require_same_calls();
  const auto flats = operation.flats.size();
  for_each_pass(
      operation, 0, flats, size(),
      [&](const Pass& pass) {
        count(pass);
        if (pass.sums())
          add(pass, operation.options);
        else
          copy(pass);
      },
      [&] { meet(nullptr, place_.stream.record(), false); });
  meet(nullptr, place_.stream.record(), true);
  return place_.stream.record();
}

/// What comes next on this rank's stream runs after the events of all.
void SharedGpuCommunicator::meet(const Operation* operation, const Event& event, bool leaves) {
  const auto posts = meeting_->meet(rank(), {operation, event}, leaves, timeout_);
  if (operation != nullptr) calls_.clear();
  for (const Meeting::Post& post : posts) {
    if (operation != nullptr) calls_.push_back(post.operation);
    place_.stream.wait(post.event);
  }
}

void SharedGpuCommunicator::require_same_calls() const {
  if (std::ranges::count(calls_, nullptr) > 0)
    throw CommunicationError("ranks diverged: not all of them have begun the same collective");
  for (std::size_t r = 1; r < calls_.size(); ++r)
    if (!calls_[r]->header.agrees_with(calls_[0]->header))
      throw CommunicationError(
          detail::diverged(calls_[0]->header, static_cast<int>(r), calls_[r]->header));
}

const std::byte* SharedGpuCommunicator::send_of(const Pass& pass, int source,
                                                std::int64_t first) const {
  const Operation& call = *calls_[static_cast<std::size_t>(source)];
  return call.flats[pass.flat_index()].send + first * pass.send_size();
}

void SharedGpuCommunicator::copy(const Pass& pass) {
  for (int source = 0; source < size(); ++source) {
    const Range range = pass.read(source, rank());
    const std::byte* from = send_of(pass, source, range.first);
    std::byte* to = pass.flat().recv + pass.landing(source) * pass.send_size();
    const std::int64_t bytes = range.count * pass.send_size();
    if (bytes > 0 && from != to) copy_async(to, from, bytes, place_.stream);
  }
}

void SharedGpuCommunicator::add(const Pass& pass, const ReduceOptions& options) {
  constexpr std::int64_t kBlocks = detail::ReductionScratch::kBlocks;
  const std::int64_t element = pass.send_size();
  const Range mine = pass.read(rank(), rank());
  double* squares =
      options.sum_of_squares.empty() ? nullptr : &options.sum_of_squares[pass.flat_index()];
  if (mine.count == 0 && squares == nullptr) return;
  const std::int64_t fit =
      size() == 1 ? kBlocks : parts_.bytes() / ((size() - 1) * element) / kNormBlock;
  const std::int64_t length = std::clamp<std::int64_t>(fit, 1, kBlocks) * kNormBlock;
  const std::int64_t landing = pass.kind() == Kind::all_reduce ? mine.first : 0;
  std::int64_t first = 0;
  do {
    const std::int64_t count = std::min(length, mine.count - first);
    for (int source = 0; source < size(); ++source) {
      const int slot = source < rank() ? source : source - 1;
      if (source != rank() && count > 0)
        copy_async(parts_.data() + slot * count * element,
                   send_of(pass, source, mine.first + first), count * element, place_.stream);
    }
    reduce_parts({.own = send_of(pass, rank(), mine.first + first),
                  .others = parts_.data(),
                  .stride = count,
                  .rank = rank(),
                  .ranks = size(),
                  .source_type = pass.flat().send_type,
                  .recv = pass.flat().recv + (landing + first) * size_of(pass.flat().recv_type),
                  .recv_type = pass.flat().recv_type,
                  .count = count,
                  .accumulate = options.accumulate,
                  .round_to_bf16 = options.round_to_bf16,
                  .squares = squares,
                  .first_piece = first == 0,
                  .partials = reinterpret_cast<double*>(partials_.data())},
                 place_.stream);
    first += length;
  } while (first < mine.count);
}

void SharedGpuCommunicator::count(const Pass& pass) {
  std::int64_t bytes = 0;
  for (int reader = 0; reader < size(); ++reader)
    if (reader != rank()) bytes += pass.read(rank(), reader).count * pass.send_size();
  sent_[static_cast<std::size_t>(traffic_of(pass.kind()))] += bytes;
}

}  // namespace ashlar::cuda
