#include "comm/operation.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "runtime/spin.hpp"

namespace ashlar {

std::string_view name_of(Traffic kind) {
  static constexpr std::array<std::string_view, kTrafficKinds> names = {
      "all_gather", "reduce_scatter", "all_reduce", "broadcast", "other"};
  return names[static_cast<std::size_t>(kind)];
}

namespace detail {

std::string_view name_of(Kind kind) {
  static constexpr std::array<std::string_view, 9> names = {
      "all_gather", "reduce_scatter", "all_reduce", "broadcast", "all_to_all",
      "send",       "recv",           "barrier",    "leave"};
  return names[static_cast<std::size_t>(kind)];
}

Traffic traffic_of(Kind kind) {
  return kind <= Kind::broadcast ? static_cast<Traffic>(kind) : Traffic::other;
}

Label::Label(std::string_view text) { text.copy(text_.data(), kCapacity - 1); }

bool Header::agrees_with(const Header& other) const {
  return kind == other.kind && dtype == other.dtype && flats == other.flats && peer == other.peer &&
         sequence == other.sequence && count == other.count && digest == other.digest &&
         label.text() == other.label.text();
}

std::string describe(const Header& header) {
  if (header.kind == Kind::leave) return "nothing more (it has left the group)";
  std::string text(name_of(header.kind));
  if (!header.label.text().empty()) text += fmt::format(" {}", header.label.text());
  if (header.flats > 0)
    text += fmt::format(" {} x {}", header.count, ashlar::name_of(header.dtype));
  if (header.flats > 1) text += fmt::format(" in {} flats", header.flats);
  if (header.kind == Kind::broadcast) text += fmt::format(" from rank {}", header.peer);
  if (header.kind == Kind::send) text += fmt::format(" to rank {}", header.peer);
  if (header.kind == Kind::recv) text += fmt::format(" from rank {}", header.peer);
  return text;
}

std::string diverged(const Header& first, int rank, const Header& other) {
  return fmt::format("ranks diverged: rank 0 called {} and rank {} called {}", describe(first),
                     rank, describe(other));
}

void require_same_message(const Header& receive, const Header& send, int source) {
  if (receive.count == send.count && receive.dtype == send.dtype) return;
  throw CommunicationError(fmt::format("ranks diverged: {}, but rank {} called {}",
                                       describe(receive), source, describe(send)));
}

void Operation::seal(Kind kind, std::int64_t sequence, std::string_view label, int peer) {
  header = Header{};
  header.kind = kind;
  header.sequence = sequence;
  header.label = Label(label);
  header.peer = peer;
  header.flats = static_cast<std::int32_t>(flats.size());
  header.dtype = flats.empty() ? DType::u8 : flats.front().send_type;
  header.digest = 0xcbf29ce484222325U;
  const auto mix = [&](std::uint64_t word) {
    header.digest = (header.digest ^ word) * 0x100000001b3U;
    header.digest ^= header.digest >> 29;
  };
  for (const Flat& flat : flats) {
    header.count += flat.count;
    mix(static_cast<std::uint64_t>(flat.count));
    mix(static_cast<std::uint64_t>(flat.send_type));
  }
}

void Operation::help() {
  while (!done()) {
    const std::unique_lock lock(service->mutex, std::try_to_lock);
    if (!lock || !service->run_queued || !service->run_queued()) return;
  }
}

void Operation::wait() {
  constexpr std::chrono::microseconds kAnnounced(1'000'000), kUnannounced(100);
  if (!between_two(header.kind)) help();
  const auto finished = [this] { return done(); };
  while (!spin_until(finished)) {
    if (!announced) help();  // who was at work has not seen it, perhaps
    const std::uint32_t heard = bell.listen();
    if (done()) break;
    bell.sleep(heard, announced ? kAnnounced : kUnannounced);
  }
  if (status.load(std::memory_order_acquire) == Status::failed) throw CommunicationError(error);
}

void Operation::finish(std::string message) {
  error = std::move(message);
  ready = {};
  status.store(error.empty() ? Status::done : Status::failed, std::memory_order_release);
  bell.ring();
}

template <typename T>
struct OperationPool::Allocator {
  using value_type = T;
  explicit Allocator(std::shared_ptr<OperationPool> owner) : pool(std::move(owner)) {}
  template <typename U>
  Allocator(const Allocator<U>& other) : pool(other.pool) {}  // NOLINT: rebinding
  T* allocate(std::size_t count) { return static_cast<T*>(pool->take_block(count * sizeof(T))); }
  void deallocate(T* block, std::size_t) noexcept { pool->give_back_block(block); }
  template <typename U>
  bool operator==(const Allocator<U>& other) const {
    return pool == other.pool;
  }

  std::shared_ptr<OperationPool> pool;
};

std::shared_ptr<OperationPool> OperationPool::make() {
  const auto pool = std::make_shared<OperationPool>();
  pool->operations_.reserve(kOperations);
  pool->blocks_.reserve(kOperations);
  std::vector<std::shared_ptr<Operation>> all;
  for (int i = 0; i < kOperations; ++i) all.push_back(pool->take());
  return pool;
}

std::shared_ptr<Operation> OperationPool::take() {
  std::unique_ptr<Operation> operation;
  {
    const std::scoped_lock lock(mutex_);
    if (!operations_.empty()) {
      operation = std::move(operations_.back());
      operations_.pop_back();
    }
  }
  if (!operation) {
    operation = std::make_unique<Operation>();
    operation->flats.reserve(kFlats);
  }
  operation->status.store(Operation::Status::pending, std::memory_order_relaxed);
  operation->flats.clear();
  operation->options = {};
  operation->progress = 0;
  std::shared_ptr<OperationPool> self = shared_from_this();
  return {operation.release(), [self](Operation* used) { self->give_back(used); },
          Allocator<Operation>(self)};
}

void OperationPool::give_back(Operation* operation) noexcept {
  operation->service.reset();
  const std::scoped_lock lock(mutex_);
  operations_.emplace_back(operation);
}

void* OperationPool::take_block(std::size_t bytes) {
  constexpr std::size_t kBlock = 256;
  if (bytes > kBlock) throw std::bad_alloc();
  const std::scoped_lock lock(mutex_);
  if (blocks_.empty()) return new std::byte[kBlock];
  void* block = blocks_.back().release();
  blocks_.pop_back();
  return block;
}

void OperationPool::give_back_block(void* block) noexcept {
  const std::scoped_lock lock(mutex_);
  blocks_.emplace_back(static_cast<std::byte*>(block));
}

}  // namespace detail
}  // namespace ashlar
