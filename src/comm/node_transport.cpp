#include "comm/node_transport.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <thread>

#include "comm/copy.hpp"
#include "comm/waiter.hpp"

namespace ashlar::detail {
namespace {

/// While it lives, a failing peer keeps its buffers, unless the group had failed before.
class Reading {
 public:
  Reading(Slot& slot, const Board& board) : slot_(slot) {
    slot_.reading.store(1);
    allowed_ = board.failure.load() == Board::none;
  }
  ~Reading() { slot_.reading.store(0); }
  Reading(const Reading&) = delete;
  Reading& operator=(const Reading&) = delete;

  bool allowed() const { return allowed_; }

 private:
  Slot& slot_;
  bool allowed_;
};

constexpr auto never = [] { return false; };
constexpr auto nobody = [](int) { return false; };

}  // namespace

NodeTransport::NodeTransport(int rank, int size, std::unique_ptr<AddressSpace> space)
    : Transport(rank, size),
      space_(std::move(space)),
      board_(space_->board()),
      sources_(static_cast<std::size_t>(size)) {}

void NodeTransport::run(Operation& operation, Waiter& waiter) {
  board_.slot(rank()).header = operation.header;
  std::size_t first = 0;
  do {
    const std::size_t last = std::min(operation.flats.size(), first + Slot::kBatch);
    post(operation, first, last);
    meet(waiter);
    if (first == 0) require_same_operation(waiter);
    const bool direct = everything_readable(operation, last - first);
    const auto move = [&](const Pass& pass) {
      if (!direct) return move_staged(pass, waiter);
      if (const Reading reading(board_.slot(rank()), board_); reading.allowed())
        return move_direct(pass, pass.flat_index() - first);
      waiter.until(never, nobody);
    };
    for_each_pass(operation, first, last, size(), move, [&] { meet(waiter); });
    meet(waiter);
    first = last;
  } while (first < operation.flats.size());
}

void NodeTransport::post(const Operation& operation, std::size_t first, std::size_t last) {
  const bool parts =
      operation.header.kind == Kind::reduce_scatter || operation.header.kind == Kind::all_to_all;
  for (std::size_t f = first; f < last; ++f) {
    const Flat& flat = operation.flats[f];
    const std::int64_t bytes = flat.count * (parts ? size() : 1) * size_of(flat.send_type);
    board_.slot(rank()).address[f - first] = space_->publish(flat.send, bytes);
  }
}

bool NodeTransport::everything_readable(const Operation& operation, std::size_t flats) {
  const bool one_sender = operation.header.kind == Kind::broadcast;
  for (int r = 0; r < size(); ++r) {
    if (one_sender && r != operation.header.peer) continue;
    const auto& address = board_.slot(r).address;
    const auto end = address.begin() + static_cast<std::ptrdiff_t>(flats);
    if (std::find(address.begin(), end, AddressSpace::kPrivate) != end) return false;
  }
  return true;
}

void NodeTransport::move_direct(const Pass& pass, std::size_t posted) {
  for (int r = 0; r < size(); ++r) {
    const std::int64_t address = board_.slot(r).address[posted];
    const std::byte* base = r == rank() ? pass.flat().send : space_->resolve(r, address);
    sources_[r] = base + pass.read(r, rank()).first * pass.send_size();
  }
  consume(pass, {0, pass.longest()});
}

// Two halves take turns: a half is filled again only after a meeting that all its readers passed.
void NodeTransport::move_staged(const Pass& pass, Waiter& waiter) {
  const std::int64_t half = stage_bytes(size()) / 2;
  const std::int64_t readers = pass.scatters() ? size() : 1;
  const std::int64_t elements =
      std::max(half / readers / pass.send_size() / kNormBlock * kNormBlock, kNormBlock);
  const std::int64_t stride = elements * pass.send_size();
  std::int64_t turn = 0;
  for (std::int64_t first = 0; first < pass.longest(); first += elements, ++turn) {
    const Range chunk{first, std::min(elements, pass.longest() - first)};
    const std::int64_t offset = turn % 2 * half;
    fill_stage(pass, chunk, readers > 1 ? stride : 0, space_->stage(rank()) + offset);
    meet(waiter);
    for (int r = 0; r < size(); ++r)
      sources_[r] = space_->stage(r) + offset + (readers > 1 ? rank() * stride : 0);
    consume(pass, chunk);
  }
  meet(waiter);
}

void NodeTransport::fill_stage(const Pass& pass, Range chunk, std::int64_t stride,
                               std::byte* stage) {
  const int readers = stride > 0 ? size() : 1;
  for (int reader = 0; reader < readers; ++reader) {
    const Range range = pass.read(rank(), reader);
    const std::int64_t count = std::min(chunk.count, range.count - chunk.first);
    if (count <= 0) continue;
    std::memcpy(stage + reader * stride,
                pass.flat().send + (range.first + chunk.first) * pass.send_size(),
                static_cast<std::size_t>(count * pass.send_size()));
  }
}

void NodeTransport::consume(const Pass& pass, Range chunk) {
  const auto traffic = static_cast<std::size_t>(traffic_of(pass.kind()));
  const auto piece = [&](int source) {
    const std::int64_t left = pass.read(source, rank()).count - chunk.first;
    return std::clamp<std::int64_t>(left, 0, chunk.count);
  };
  for (int hop = 0; hop < size(); ++hop) {
    const int source = (rank() + hop) % size();
    const std::int64_t bytes = piece(source) * pass.send_size();
    if (bytes == 0) continue;
    if (source != rank()) board_.slot(source).sent[traffic].fetch_add(bytes);
    if (pass.sums()) continue;
    std::byte* target = pass.flat().recv + (pass.landing(source) + chunk.first) * pass.send_size();
    copy_bytes(target, sources_[source], bytes);
  }
  if (pass.sums()) pass.sum(sources_, {chunk.first, piece(rank())}, rank());
}

void NodeTransport::meet(Waiter& waiter) {
  ++step_;
  board_.slot(rank()).step.store(step_);
  for (int r = 0; r < size(); ++r)
    if (r != rank()) board_.slot(r).meeting.ring();
  const auto missing = [&](int r) {
    return board_.slot(r).step.load(std::memory_order_acquire) < step_;
  };
  const auto all_here = [&] {
    for (int r = 0; r < size(); ++r)
      if (missing(r)) return false;
    return true;
  };
  waiter.until(all_here, missing);
}

void NodeTransport::require_same_operation(const Waiter& waiter) {
  const Header& first = board_.slot(0).header;
  for (int r = 1; r < size(); ++r) {
    const Header& other = board_.slot(r).header;
    if (!first.agrees_with(other)) waiter.fail(diverged(first, r, other));
  }
}

std::chrono::microseconds NodeTransport::longest_sleep(bool, bool messages_pending) const {
  if (messages_pending && space_->must_poll_messages()) return std::chrono::microseconds(100);
  return std::chrono::milliseconds(100);
}

std::optional<std::string> NodeTransport::failure() {
  if (board_.failure.load() != Board::written) return std::nullopt;
  return fmt::format("rank {} failed: {}", board_.failed_rank, board_.reason.data());
}

std::optional<std::string> NodeTransport::absence(int peer) {
  Slot& slot = board_.slot(peer);
  if (slot.left.load() != 0) return fmt::format("rank {} has left the group", peer);
  if (space_->dead(peer))
    return fmt::format("rank {} has died (process {} is gone)", peer, slot.process);
  return std::nullopt;
}

void NodeTransport::fail(std::string_view reason) noexcept {
  std::uint32_t none = Board::none;
  if (!board_.failure.compare_exchange_strong(none, Board::being_written)) return;
  board_.failed_rank = rank();
  const std::size_t length = std::min(reason.size(), board_.reason.size() - 1);
  std::memcpy(board_.reason.data(), reason.data(), length);
  board_.failure.store(Board::written);
  for (int r = 0; r < size(); ++r) board_.slot(r).ring();
}

void NodeTransport::settle() noexcept {
  if (!space_->buffers_vanish()) return;
  for (int r = 0; r < size(); ++r)
    while (r != rank() && board_.slot(r).reading.load() != 0) std::this_thread::yield();
}

void NodeTransport::leave() noexcept {
  board_.slot(rank()).left.store(1);
  for (int r = 0; r < size(); ++r) board_.slot(r).ring();
}

SentBytes NodeTransport::sent_bytes() const {
  SentBytes bytes{};
  for (std::size_t kind = 0; kind < bytes.size(); ++kind)
    bytes[kind] = board_.slot(rank()).sent[kind].load();
  return bytes;
}

}  // namespace ashlar::detail
