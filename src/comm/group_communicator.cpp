#include "comm/group_communicator.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "comm/agreement.hpp"
#include "comm/arguments.hpp"

namespace ashlar::detail {

GroupCommunicator::GroupCommunicator(std::unique_ptr<Transport> transport)
    : transport_(std::move(transport)),
      waiter_(*transport_, [this] { return progress_messages(); }) {
  const bool core_each = size() <= static_cast<int>(std::thread::hardware_concurrency());
  service_->run_queued = [this, patience = core_each ? 25 : 1] {
    waiter_.set_patience(patience);
    const bool any = run_collectives();
    waiter_.set_patience(1);
    return any;
  };
  thread_ = std::thread([this] { serve(); });
}

GroupCommunicator::~GroupCommunicator() {
  {
    const std::scoped_lock lock(mutex_);
    stopping_ = true;
  }
  transport_->bell().ring();
  thread_.join();
  {
    const std::scoped_lock service(service_->mutex);
    service_->run_queued = nullptr;
  }
  transport_->leave();
}

Work GroupCommunicator::all_gather(std::span<const Transfer> flats, std::string_view label,
                                   StreamRef stream) {
  auto operation = prepare();
  for (const Transfer& flat : flats)
    operation->flats.push_back(check_all_gather(flat, size(), label));
  return start(std::move(operation), Kind::all_gather, label, -1, stream);
}

Work GroupCommunicator::reduce_scatter(std::span<const Transfer> flats,
                                       const ReduceOptions& options, std::string_view label,
                                       StreamRef stream) {
  auto operation = prepare();
  for (const Transfer& flat : flats)
    operation->flats.push_back(check_reduce_scatter(flat, size(), label));
  check_squares(options, flats.size(), label);
  operation->options = options;
  return start(std::move(operation), Kind::reduce_scatter, label, -1, stream);
}

Work GroupCommunicator::all_reduce(TensorView values, std::string_view label, StreamRef stream) {
  auto operation = prepare();
  operation->flats.push_back(check_in_place(values, Kind::all_reduce, label));
  return start(std::move(operation), Kind::all_reduce, label, -1, stream);
}

Work GroupCommunicator::broadcast(TensorView values, int root, std::string_view label,
                                  StreamRef stream) {
  check_peer(root, size(), Kind::broadcast, label);
  auto operation = prepare();
  operation->flats.push_back(check_in_place(values, Kind::broadcast, label));
  return start(std::move(operation), Kind::broadcast, label, root, stream);
}

Work GroupCommunicator::all_to_all(TensorView send, TensorView recv, std::string_view label,
                                   StreamRef stream) {
  auto operation = prepare();
  operation->flats.push_back(check_all_to_all(send, recv, size(), label));
  return start(std::move(operation), Kind::all_to_all, label, -1, stream);
}

Work GroupCommunicator::send(TensorView values, int destination, std::string_view label,
                             StreamRef stream) {
  check_other(destination, rank(), size(), Kind::send, label);
  auto operation = prepare();
  operation->flats.push_back(check_in_place(values, Kind::send, label));
  return start(std::move(operation), Kind::send, label, destination, stream);
}

Work GroupCommunicator::recv(TensorView values, int source, std::string_view label,
                             StreamRef stream) {
  check_other(source, rank(), size(), Kind::recv, label);
  auto operation = prepare();
  operation->flats.push_back(check_in_place(values, Kind::recv, label));
  return start(std::move(operation), Kind::recv, label, source, stream);
}

void GroupCommunicator::barrier(std::string_view label) {
  start(prepare(), Kind::barrier, label, -1, {}).wait();
}

std::unique_ptr<Communicator> GroupCommunicator::split(int color, int key) {
  const std::string mine = fmt::format("{} {}", color, key);
  const std::vector<std::string> all = exchange(*this, mine, "split");
  std::vector<std::pair<int, int>> members;  // (key, rank)
  for (int r = 0; r < size(); ++r) {
    const std::size_t space = all[r].find(' ');
    if (std::stoi(all[r]) == color) members.emplace_back(std::stoi(all[r].substr(space)), r);
  }
  std::sort(members.begin(), members.end());
  std::vector<int> ranks;
  for (const auto& member : members) ranks.push_back(member.second);
  auto group = std::make_unique<GroupCommunicator>(transport_->split(
      ranks, [this](const std::string& text) { return exchange(*this, text, "split"); }));
  group->set_timeout(waiter_.timeout());
  return group;
}

std::vector<std::string> GroupCommunicator::recent() const {
  std::vector<std::string> lines;
  for (const Record& record : recorder_.records()) lines.push_back(describe(record));
  return lines;
}

void GroupCommunicator::set_timeout(std::chrono::milliseconds timeout) {
  if (timeout.count() <= 0) throw InvalidArgument("a communicator's timeout must be positive");
  waiter_.set_timeout(timeout);
}

void GroupCommunicator::set_waits_at_once(bool on) {
  waits_at_once_ = on;
  if (on) return;
  const std::scoped_lock lock(mutex_);
  if (!queued_collectives_.empty()) transport_->bell().ring();
}

void GroupCommunicator::abort(std::string_view reason) noexcept { transport_->fail(reason); }

bool GroupCommunicator::close() noexcept {
  try {
    set_timeout(std::chrono::hours(24 * 365));
    start(prepare(), Kind::leave, {}, -1, {}).wait();
    return true;
  } catch (const std::exception&) {
    return false;
  }
}

std::shared_ptr<Operation> GroupCommunicator::prepare() { return pool_->take(); }

Work GroupCommunicator::start(std::shared_ptr<Operation> operation, Kind kind,
                              std::string_view label, int peer, StreamRef stream) {
  const bool message = between_two(kind);
  operation->seal(kind, message ? ++messages_ : ++collectives_, label, peer);
  operation->ready = stream.record();
  operation->service = service_;
  operation->announced = message || !waits_at_once_;
  operation->record = recorder_.queue(operation->header);
  const bool announced = operation->announced;
  Work work(operation);
  {
    const std::scoped_lock lock(mutex_);
    (message ? queued_messages_ : queued_collectives_).push_back(std::move(operation));
  }
  if (announced) transport_->bell().ring();
  if (message) transport_->meeting().ring();
  return work;
}

void GroupCommunicator::serve() {
  while (true) {
    const std::uint32_t heard = transport_->bell().listen();
    bool pending = false;
    {
      const std::scoped_lock service(service_->mutex);
      pending = progress_messages();
      if (run_collectives()) continue;
      if (!pending && told_to_stop()) return;
      if (const auto failure = transport_->failure()) give_up(*failure);
    }
    const auto rung = [&] { return transport_->bell().listen() != heard; };
    if (!spin_until(rung))
      transport_->bell().sleep(heard, transport_->longest_sleep(false, pending));
  }
}

bool GroupCommunicator::told_to_stop() const {
  const std::scoped_lock lock(mutex_);
  return stopping_ && queued_collectives_.empty() && queued_messages_.empty();
}

/// Runs what is queued, in order. @return whether anything was.
bool GroupCommunicator::run_collectives() {
  {
    const std::scoped_lock lock(mutex_);
    collectives_taken_.swap(queued_collectives_);
  }
  if (collectives_taken_.empty()) return false;
  for (auto& operation : collectives_taken_) {
    run(*operation);
    operation.reset();
  }
  collectives_taken_.clear();
  return true;
}

void GroupCommunicator::run(Operation& operation) {
  if (const auto failure = transport_->failure()) give_up(*failure);
  std::string error = failure_;
  if (error.empty()) {
    recorder_.start(operation.record);
    try {
      waiter_.begin(operation);
      waiter_.until_ready(operation.ready);
      std::ranges::fill(operation.options.sum_of_squares, 0.0);
      waiter_.begin(operation);
      transport_->run(operation, waiter_);
    } catch (const CommunicationError& failure) {
      error = failure.what();
    } catch (const std::exception& failure) {
      error = Waiter::message(operation, rank(), failure.what());
    }
    if (!error.empty()) give_up(error);
  } else {
    error = Waiter::message(operation, rank(), "the group failed before: " + error);
  }
  finish(operation, std::move(error));
}

bool GroupCommunicator::progress_messages() {
  {
    const std::scoped_lock lock(mutex_);
    for (auto& operation : queued_messages_) messages_taken_.push_back(std::move(operation));
    queued_messages_.clear();
  }
  const auto behind = [&](std::size_t i) {
    const Header& mine = messages_taken_[i]->header;
    return std::any_of(messages_taken_.begin(), messages_taken_.begin() + i, [&](const auto& o) {
      return o && o->header.kind == mine.kind && o->header.peer == mine.peer;
    });
  };
  for (std::size_t i = 0; i < messages_taken_.size(); ++i)
    if (!behind(i) && advance_message(*messages_taken_[i])) messages_taken_[i].reset();
  std::erase(messages_taken_, nullptr);
  return !messages_taken_.empty();
}

/// @return whether it has come to its end, one way or the other.
bool GroupCommunicator::advance_message(Operation& operation) {
  std::string trouble;
  try {
    if (!failure_.empty()) {
      trouble = "the group failed before: " + failure_;
    } else if (!operation.ready.done()) {
      return false;
    } else if (operation.started == Waiter::Clock::time_point{}) {
      operation.started = Waiter::Clock::now();
      recorder_.start(operation.record);
    }
    if (trouble.empty()) {
      bool complete = transport_->advance(operation);
      if (!complete) trouble = waiter_.trouble_between(operation);
      if (!complete && trouble.empty()) return false;
      if (complete || transport_->advance(operation)) {
        finish(operation, {});
        return true;
      }
    }
  } catch (const std::exception& failure) {
    trouble = failure.what();
  }
  const std::string error = Waiter::message(operation, rank(), trouble);
  give_up(error);
  finish(operation, error);
  return true;
}

void GroupCommunicator::finish(Operation& operation, std::string error) {
  recorder_.end(operation.record, !error.empty());
  operation.finish(std::move(error));
}

void GroupCommunicator::give_up(std::string_view reason) {
  if (!failure_.empty()) return;
  failure_ = reason;
  transport_->fail(reason);
  transport_->settle();
}

}  // namespace ashlar::detail
