#include "comm/threads.hpp"

#include <fmt/format.h>

#include <exception>
#include <mutex>
#include <new>
#include <string>
#include <thread>

#include "comm/copy.hpp"
#include "comm/group_communicator.hpp"
#include "comm/node_transport.hpp"

namespace ashlar {
namespace detail {

ThreadGroup::ThreadGroup(int size)
    : size_(size),
      board_(static_cast<Board*>(
          ::operator new(Board::bytes(size), std::align_val_t(alignof(Board))))),
      mailboxes_(static_cast<std::size_t>(size * size)) {
  new (board_) Board;
  for (int r = 0; r < size; ++r) new (&board_->slot(r)) Slot;
}

ThreadGroup::~ThreadGroup() { ::operator delete(board_, std::align_val_t(alignof(Board))); }

namespace {

class ProcessMemory final : public AddressSpace {
 public:
  ProcessMemory(std::shared_ptr<ThreadGroup> group, int rank, std::string_view name)
      : group_(std::move(group)), rank_(rank), name_(name) {}

  std::string_view name() const override { return name_; }
  Board& board() override { return group_->board(); }
  std::int64_t publish(const std::byte* pointer, std::int64_t) const override {
    return reinterpret_cast<std::intptr_t>(pointer);
  }
  const std::byte* resolve(int, std::int64_t address) const override {
    return reinterpret_cast<const std::byte*>(address);
  }
  std::byte* stage(int) const override { return nullptr; }
  bool buffers_vanish() const override { return true; }
  bool dead(int) override { return false; }
  MemoryResource& window() override { return host_memory(); }
  bool must_poll_messages() const override { return false; }
  bool advance(Operation& operation) override {
    return operation.header.kind == Kind::send ? advance_send(operation) : advance_recv(operation);
  }
  std::unique_ptr<Transport> split(std::span<const int> members, const Exchange& exchange) override;

 private:
  bool advance_send(Operation& operation);
  bool advance_recv(Operation& operation);

  std::shared_ptr<ThreadGroup> group_;
  int rank_;
  std::string_view name_;
};

bool ProcessMemory::advance_send(Operation& operation) {
  const int destination = operation.header.peer;
  ThreadGroup::Mailbox& box = group_->mailbox(rank_, destination);
  if (operation.progress == 0) {
    box.values = operation.flats[0].send;
    box.header = operation.header;
    box.state.store(ThreadGroup::Mailbox::full);
    board().slot(destination).ring();
    operation.progress = 1;
  }
  if (box.state.load() != ThreadGroup::Mailbox::taken) return false;
  box.state.store(ThreadGroup::Mailbox::empty);
  return true;
}

bool ProcessMemory::advance_recv(Operation& operation) {
  const int source = operation.header.peer;
  ThreadGroup::Mailbox& box = group_->mailbox(source, rank_);
  if (box.state.load() != ThreadGroup::Mailbox::full) return false;
  require_same_message(operation.header, box.header, source);
  Slot& slot = board().slot(rank_);
  slot.reading.store(1);
  const bool allowed = board().failure.load() == Board::none;
  const std::int64_t bytes = operation.flats[0].count * size_of(operation.flats[0].recv_type);
  if (allowed) copy_bytes(operation.flats[0].recv, box.values, bytes);
  slot.reading.store(0);
  if (!allowed) return false;
  constexpr auto other = static_cast<std::size_t>(Traffic::other);
  board().slot(source).sent[other].fetch_add(bytes);
  box.state.store(ThreadGroup::Mailbox::taken);
  board().slot(source).ring();
  return true;
}

// The first member makes the group; the others copy its pointer before it lets go of its own.
std::unique_ptr<Transport> ProcessMemory::split(std::span<const int> members,
                                                const Exchange& exchange) {
  const int rank =
      static_cast<int>(std::find(members.begin(), members.end(), rank_) - members.begin());
  std::shared_ptr<ThreadGroup> group;
  if (rank == 0) group = std::make_shared<ThreadGroup>(static_cast<int>(members.size()));
  const auto address = reinterpret_cast<std::uintptr_t>(rank == 0 ? &group : nullptr);
  const std::string first = exchange(fmt::format("{}", address))[members[0]];
  if (rank != 0) group = *reinterpret_cast<std::shared_ptr<ThreadGroup>*>(std::stoull(first));
  exchange("taken");
  return thread_transport(std::move(group), rank, name_);
}

/// The error of the rank that failed first. The others follow with CommunicationErrors, which may
/// come in before it.
class FirstError {
 public:
  void set(std::exception_ptr error, bool follows) {
    const std::scoped_lock lock(mutex_);
    if (error_ && (follows || !follows_)) return;
    error_ = std::move(error);
    follows_ = follows;
  }
  void rethrow() const {
    if (error_) std::rethrow_exception(error_);
  }

 private:
  std::mutex mutex_;
  std::exception_ptr error_;
  bool follows_ = false;
};

void run_rank(Communicator& communicator, const std::function<void(Communicator&)>& body,
              FirstError& first) {
  try {
    body(communicator);
  } catch (const std::exception& error) {
    const bool follows = dynamic_cast<const CommunicationError*>(&error) != nullptr;
    const std::string reason = error.what();  // not after `set`: another rank may replace it
    first.set(std::current_exception(), follows);
    communicator.abort(reason);
  } catch (...) {
    first.set(std::current_exception(), false);
    communicator.abort("an exception of an unknown type");
  }
}

}  // namespace

std::unique_ptr<Transport> thread_transport(std::shared_ptr<ThreadGroup> group, int rank,
                                            std::string_view name) {
  const int size = group->size();
  return std::make_unique<NodeTransport>(
      rank, size, std::make_unique<ProcessMemory>(std::move(group), rank, name));
}

}  // namespace detail

std::unique_ptr<Communicator> self_communicator() {
  return std::make_unique<detail::GroupCommunicator>(
      detail::thread_transport(std::make_shared<detail::ThreadGroup>(1), 0, "self"));
}

void launch_threads(int ranks, const std::function<void(Communicator&)>& body) {
  if (ranks < 1) throw InvalidArgument(fmt::format("a group needs at least 1 rank, not {}", ranks));
  const auto group = std::make_shared<detail::ThreadGroup>(ranks);
  detail::FirstError first;
  {
    std::vector<std::jthread> threads;
    for (int r = 0; r < ranks; ++r)
      threads.emplace_back([&, r] {
        detail::GroupCommunicator communicator(detail::thread_transport(group, r, "threads"));
        detail::run_rank(communicator, body, first);
      });
  }
  first.rethrow();
}

}  // namespace ashlar
