#include "simulate/recording_communicator.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "ashlar/error.hpp"
#include "simulate/op_time.hpp"

namespace ashlar::simulate {
namespace {

struct Kernel {
  Cost cost;
  DType dtype;
};

[[noreturn]] void refuse_message(std::string_view label) {
  throw InvalidArgument(fmt::format("a dry run has nobody to exchange messages with ({})", label));
}

}  // namespace

struct RecordingCommunicator::Record {
  std::vector<Task> tasks;  // compute: one per kernel, without a price yet
  std::vector<Kernel> kernels;
  std::vector<CollectiveCall> calls;
  SentBytes sent{};
  std::string unpriced;  // the first call that no model prices, with its label
  int cleared = 0;       // waits of collectives from before are not of this step
};

/// The first wait counts.
struct RecordingCommunicator::Flight final : Work::State {
  Flight(std::shared_ptr<Record> into, int at)
      : record(std::move(into)), call(at), of(record->cleared) {}
  void wait() override {
    if (waited || of != record->cleared) return;
    waited = true;
    record->tasks.push_back({Task::Kind::wait, 0, call, 0, 0});
  }
  bool done() const override { return waited; }

  std::shared_ptr<Record> record;
  int call, of;
  bool waited = false;
};

RecordingCommunicator::RecordingCommunicator(int ranks)
    : RecordingCommunicator(ranks, 0, std::make_shared<Record>()) {}
RecordingCommunicator::RecordingCommunicator(int ranks, int stream, std::shared_ptr<Record> record)
    : ranks_(ranks), stream_(stream), record_(std::move(record)) {
  if (ranks < 1) throw InvalidArgument(fmt::format("a dry run of {} ranks", ranks));
}
RecordingCommunicator::~RecordingCommunicator() = default;

void RecordingCommunicator::kernel(const Cost& cost, DType dtype) {
  const auto at = static_cast<int>(record_->kernels.size());
  record_->tasks.push_back({Task::Kind::compute, 0, -1, at, at + 1});
  record_->kernels.push_back({cost, dtype});
}

void RecordingCommunicator::clear() {
  record_->tasks.clear();
  record_->kernels.clear();
  record_->calls.clear();
  record_->sent = {};
  record_->unpriced.clear();
  ++record_->cleared;
}

Workload RecordingCommunicator::workload(const Cluster& cluster, Algorithm algorithm) const {
  if (!record_->unpriced.empty()) {
    throw InvalidArgument(
        fmt::format("a step that calls {} cannot be priced: gathers, reductions and sums can",
                    record_->unpriced));
  }
  Workload work;
  work.ranks = ranks_;
  work.tasks = record_->tasks;
  work.body_last = static_cast<int>(work.tasks.size());
  work.collectives = record_->calls;
  work.instructions = std::ssize(work.tasks);
  work.overlap_slowdown = cluster.overlap_slowdown;
  for (const Kernel& kernel : record_->kernels) {
    const double seconds = seconds_of(kernel.cost, kernel.dtype, false, cluster.device);
    const bool is_product = kernel.cost.kind == Cost::Class::product;
    const bool counts = is_product || kernel.cost.kind == Cost::Class::attention;
    (is_product ? work.compute.product
     : counts   ? work.compute.attention
                : work.compute.memory) += seconds;
    if (counts) work.flops += kernel.cost.flops;
    work.step_picoseconds.push_back(picoseconds_of(seconds));
  }
  work.model_flops = work.flops;
  for (Task& task : work.tasks) {
    if (task.kind == Task::Kind::compute)
      task.picoseconds = work.step_picoseconds[static_cast<std::size_t>(task.first_step)];
  }
  for (CollectiveCall& call : work.collectives) {
    call.picoseconds = picoseconds_of(
        seconds_of(call.kind, static_cast<double>(call.bytes), ranks_, cluster, algorithm));
    work.sent_bytes += call.sent_bytes();
  }
  return work;
}

Work RecordingCommunicator::note(CollectiveKind kind, std::int64_t bytes, std::string_view label) {
  const auto at = static_cast<int>(record_->calls.size());
  record_->calls.push_back({kind, bytes, ranks_, 0, std::string(label), stream_});
  record_->tasks.push_back({Task::Kind::start, 0, at, 0, 0});
  const bool twice = kind == CollectiveKind::all_reduce;
  record_->sent[static_cast<std::size_t>(kind)] += (twice ? 2 : 1) * bytes / ranks_ * (ranks_ - 1);
  return Work(std::make_shared<Flight>(record_, at));
}

Work RecordingCommunicator::all_gather(std::span<const Transfer> flats, std::string_view label,
                                       StreamRef) {
  std::int64_t bytes = 0;
  for (const Transfer& flat : flats) {
    bytes += flat.recv.bytes();
    const std::int64_t part = flat.send.bytes();
    for (int r = 0; part > 0 && r < ranks_; ++r)
      std::memmove(flat.recv.data + r * part, flat.send.data, static_cast<std::size_t>(part));
  }
  return note(CollectiveKind::all_gather, bytes, label);
}

Work RecordingCommunicator::reduce_scatter(std::span<const Transfer> flats,
                                           const ReduceOptions& options, std::string_view label,
                                           StreamRef) {
  std::int64_t bytes = 0;
  for (const Transfer& flat : flats) {
    bytes += flat.send.bytes();
    if (flat.send.dtype == flat.recv.dtype && flat.recv.bytes() > 0 && !options.accumulate)
      std::memmove(flat.recv.data, flat.send.data, static_cast<std::size_t>(flat.recv.bytes()));
  }
  std::ranges::fill(options.sum_of_squares, 0.0);
  return note(CollectiveKind::reduce_scatter, bytes, label);
}

Work RecordingCommunicator::all_reduce(TensorView values, std::string_view label, StreamRef) {
  return note(CollectiveKind::all_reduce, values.bytes(), label);
}

void RecordingCommunicator::note_unpriced(std::string_view what, std::string_view label) {
  if (record_->unpriced.empty()) record_->unpriced = fmt::format("{} ({})", what, label);
}

Work RecordingCommunicator::broadcast(TensorView, int, std::string_view label, StreamRef) {
  note_unpriced("a broadcast", label);
  return {};
}

/// The others are taken to send what this rank sends.
Work RecordingCommunicator::all_to_all(TensorView send, TensorView recv, std::string_view label,
                                       StreamRef) {
  note_unpriced("an all-to-all", label);
  const std::int64_t part = send.bytes() / ranks_;
  for (int r = 0; part > 0 && r < ranks_; ++r)
    std::memcpy(recv.data + r * part, send.data, static_cast<std::size_t>(part));
  return {};
}

void RecordingCommunicator::barrier(std::string_view label) { note_unpriced("a barrier", label); }

Work RecordingCommunicator::send(TensorView, int, std::string_view label, StreamRef) {
  refuse_message(label);
}
Work RecordingCommunicator::recv(TensorView, int, std::string_view label, StreamRef) {
  refuse_message(label);
}

std::unique_ptr<Communicator> RecordingCommunicator::split(int, int) {
  return std::unique_ptr<Communicator>(new RecordingCommunicator(ranks_, 1, record_));
}

SentBytes RecordingCommunicator::sent_bytes() const { return record_->sent; }

void RecordingCommunicator::abort(std::string_view) noexcept {}

}  // namespace ashlar::simulate
