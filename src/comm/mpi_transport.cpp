#include "comm/mpi_transport.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "comm/copy.hpp"
#include "comm/waiter.hpp"

namespace ashlar::detail {
namespace {

constexpr std::int64_t kPieceBytes = std::int64_t{1} << 20;  // of a sum, from each rank
constexpr std::chrono::milliseconds kBeat(250);
constexpr std::chrono::milliseconds kSilence(1800);

}  // namespace

MpiTransport::MpiTransport(int rank, MpiGroup group)
    : Transport(rank, group.size()),
      messages_(std::move(group)),
      group_(messages_.group()),
      peers_(static_cast<std::size_t>(size())),
      sources_(static_cast<std::size_t>(size())) {
  for (int r = 0; r < size(); ++r) {
    Peer& peer = peers_[r];
    peer.heard = Clock::now();
    if (r == rank) continue;
    group_.recv(&peer.notice, sizeof(Notice), r, MpiTag::control, peer.notice_request);
    if (!same_node(r)) several_nodes_ = true;
  }
}

MpiTransport::~MpiTransport() {
  for (Peer& peer : peers_) group_.cancel(peer.notice_request);
}

void MpiTransport::run(Operation& operation, Waiter& waiter) {
  try {
    meet(operation.header, waiter);
    const auto move = [&](const Pass& pass) {
      pass.sums() ? sum(pass, waiter) : copy(pass, waiter);
    };
    for_each_pass(operation, 0, operation.flats.size(), size(), move, [] {});
  } catch (...) {
    abandon();
    throw;
  }
}

bool MpiTransport::advance(Operation& operation) {
  if (operation.header.kind == Kind::send && operation.progress == 0)
    sent_[static_cast<std::size_t>(Traffic::other)] +=
        operation.header.count * size_of(operation.header.dtype);
  return messages_.advance(operation);
}

void MpiTransport::meet(const Header& header, Waiter& waiter) {
  for (int r = 0; r < size(); ++r) {
    peers_[r].header = header;
    if (r == rank()) continue;
    group_.send(&header, sizeof(Header), r, MpiTag::header, sends_);
    group_.recv(&peers_[r].header, sizeof(Header), r, MpiTag::header, peers_[r].header_request);
  }
  const auto missing = [&](int r) { return !group_.test(peers_[r].header_request); };
  waiter.until(
      [&] {
        bool all = group_.test(sends_);
        for (int r = 0; r < size(); ++r) all = !missing(r) && all;
        return all;
      },
      missing);
  for (int r = 1; r < size(); ++r)
    if (!peers_[0].header.agrees_with(peers_[r].header))
      waiter.fail(diverged(peers_[0].header, r, peers_[r].header));
}

void MpiTransport::copy(const Pass& pass, Waiter& waiter) {
  const std::int64_t unit = pass.send_size();
  for (int r = 0; r < size(); ++r) {
    const Range in = pass.read(r, rank());
    std::byte* target = pass.flat().recv + pass.landing(r) * unit;
    if (r == rank()) {
      copy_bytes(target, pass.flat().send + in.first * unit, in.count * unit);
      continue;
    }
    const Range out = pass.read(rank(), r);
    group_.recv(target, in.count * unit, r, MpiTag::data, peers_[r].data);
    group_.send(pass.flat().send + out.first * unit, out.count * unit, r, MpiTag::data, sends_);
    count(pass, out.count);
  }
  wait_for_data(waiter);
}

void MpiTransport::sum(const Pass& pass, Waiter& waiter) {
  const std::int64_t unit = pass.send_size();
  const std::int64_t elements = kPieceBytes / unit;
  scratch_.resize(static_cast<std::size_t>(size() * kPieceBytes));
  const auto piece_of = [&](Range range, std::int64_t first) {
    return Range{range.first + first, std::clamp<std::int64_t>(range.count - first, 0, elements)};
  };
  for (std::int64_t first = 0; first < pass.longest(); first += elements) {
    for (int r = 0; r < size(); ++r) {
      const Range in = piece_of(pass.read(r, rank()), first);
      sources_[r] = pass.flat().send + in.first * unit;
      if (r == rank()) continue;
      sources_[r] = scratch_.data() + r * kPieceBytes;
      const Range out = piece_of(pass.read(rank(), r), first);
      group_.recv(scratch_.data() + r * kPieceBytes, in.count * unit, r, MpiTag::data,
                  peers_[r].data);
      group_.send(pass.flat().send + out.first * unit, out.count * unit, r, MpiTag::data, sends_);
      count(pass, out.count);
    }
    wait_for_data(waiter);
    pass.sum(sources_, {first, piece_of(pass.read(rank(), rank()), first).count}, rank());
  }
}

void MpiTransport::count(const Pass& pass, std::int64_t elements) {
  sent_[static_cast<std::size_t>(traffic_of(pass.kind()))] += elements * pass.send_size();
}

void MpiTransport::wait_for_data(Waiter& waiter) {
  const auto missing = [&](int r) { return !group_.test(peers_[r].data); };
  waiter.until(
      [&] {
        bool all = group_.test(sends_);
        for (int r = 0; r < size(); ++r) all = !missing(r) && all;
        return all;
      },
      missing);
}

std::chrono::microseconds MpiTransport::longest_sleep(bool waiting, bool messages_pending) const {
  if (waiting || messages_pending) return std::chrono::microseconds(50);
  return std::chrono::milliseconds(20);
}

std::optional<std::string> MpiTransport::failure() {
  listen();
  std::string reason;
  {
    const std::scoped_lock lock(failure_mutex_);
    reason = failure_;
  }
  if (reason.empty()) return std::nullopt;
  if (!told_failure_) {
    told_failure_ = true;
    Notice notice{Notice::failed, {}};
    std::memcpy(notice.reason.data(), reason.data(),
                std::min(reason.size(), notice.reason.size() - 1));
    tell(notice);
  }
  return reason;
}

void MpiTransport::listen() {
  const Clock::time_point now = Clock::now();
  for (int r = 0; r < size(); ++r) {
    Peer& peer = peers_[r];
    if (r == rank() || !group_.test(peer.notice_request)) continue;
    peer.heard = now;
    if (peer.notice.type == Notice::left) {
      peer.left = true;
      continue;  // its last
    }
    if (peer.notice.type == Notice::failed) {
      const std::scoped_lock lock(failure_mutex_);
      if (failure_.empty()) failure_ = peer.notice.reason.data();
      told_failure_ = true;
    }
    group_.recv(&peer.notice, sizeof(Notice), r, MpiTag::control, peer.notice_request);
  }
  if (several_nodes_ && now - last_beat_ > kBeat) {
    last_beat_ = now;
    tell({});
  }
}

void MpiTransport::tell(const Notice& notice) {
  if (group_.test(notice_sends_)) notices_.clear();
  if (notices_.size() > 64) return;  // somebody does not take them
  const Notice& kept = notices_.emplace_back(notice);
  for (int r = 0; r < size(); ++r)
    if (r != rank() && !peers_[r].left)
      group_.send(&kept, sizeof(Notice), r, MpiTag::control, notice_sends_);
}

std::optional<std::string> MpiTransport::absence(int peer) {
  if (peers_[peer].left) return fmt::format("rank {} has left the group", peer);
  const Processes& processes = group_.session().processes();
  const int member = group_.member(peer);
  if (processes.dead(member))
    return fmt::format("rank {} has died (process {} is gone)", peer, processes.id(member));
  if (!processes.same_node(member) && Clock::now() - peers_[peer].heard > kSilence)
    return fmt::format("rank {} has died or lost its network (no heartbeat for {} s)", peer,
                       static_cast<double>(kSilence.count()) / 1000.0);
  return std::nullopt;
}

void MpiTransport::fail(std::string_view reason) noexcept {
  {
    const std::scoped_lock lock(failure_mutex_);
    if (failure_.empty()) failure_ = fmt::format("rank {} failed: {}", rank(), reason);
  }
  bell_.ring();
}

void MpiTransport::leave() noexcept {
  try {
    static_cast<void>(failure());
    if (size() > 1) tell({Notice::left, {}});
    const auto deadline = Clock::now() + std::chrono::seconds(1);
    while (!group_.test(notice_sends_) && Clock::now() < deadline) {
    }
  } catch (const std::exception&) {  // nobody is left to be told
  }
}

void MpiTransport::abandon() noexcept {
  for (Peer& peer : peers_) {
    group_.cancel(peer.header_request);
    group_.cancel(peer.data);
  }
}

SentBytes MpiTransport::sent_bytes() const {
  SentBytes bytes{};
  for (std::size_t kind = 0; kind < bytes.size(); ++kind) bytes[kind] = sent_[kind].load();
  return bytes;
}

std::unique_ptr<Transport> MpiTransport::split(std::span<const int> members,
                                               const Exchange& exchange) {
  const auto mine = std::find(members.begin(), members.end(), rank()) - members.begin();
  return std::make_unique<MpiTransport>(static_cast<int>(mine), group_.split(members, exchange));
}

}  // namespace ashlar::detail
