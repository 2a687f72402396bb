#include "sharding/unit_gatherer.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "ashlar/error.hpp"
#include "base/hash.hpp"
#include "comm/settle.hpp"
#include "sharding/shard_pass.hpp"

namespace ashlar {

UnitGatherer::UnitGatherer(const FlatLayout& layout, const StateViews& states, ElementOps& ops,
                           MemoryResource& pool, Communicator& communicator, int prefetch,
                           ReleasedGuard* guard)
    : layout_(layout),
      states_(states),
      ops_(ops),
      pool_(pool),
      guard_(guard),
      communicator_(communicator),
      prefetch_(prefetch),
      units_(layout.units().size()) {
  for (int f = 0; f < static_cast<int>(layout.flats().size()); ++f)
    unit(layout.flats()[static_cast<std::size_t>(f)].unit).flats.push_back(f);
}

UnitGatherer::~UnitGatherer() {
  detail::settle_all({&communicator_}, units_, [](Unit& unit) -> Work& { return unit.work; });
}

void UnitGatherer::start(int u) {
  Unit& target = unit(u);
  std::vector<Transfer> transfers;
  for (const int f : target.flats) {
    const Flat& flat = layout_.flats()[static_cast<std::size_t>(f)];
    const Buffer& buffer = target.memory.emplace_back(pool_, flat.padded * size_of(flat.dtype),
                                                      Category::gathered_parameter);
    if (guard_ != nullptr) guard_->describe(buffer.data(), layout_, flat);
    transfers.push_back({states_.find(state_name(flat, "parameter"))->second,
                         buffer.view(flat.dtype, {flat.padded})});
  }
  target.work = communicator_.all_gather(transfers, layout_.units()[static_cast<std::size_t>(u)],
                                         ops_.stream());
}

void UnitGatherer::drop(int u) noexcept {
  unit(u).memory.clear();
  unit(u).awaited = false;
}

/// The order is not what it was: what nobody holds goes.
void UnitGatherer::drop_awaited() {
  for (int u = 0; u < static_cast<int>(units_.size()); ++u) {
    if (!unit(u).awaited) continue;
    unit(u).awaited = false;
    ops_.await(unit(u).work);
    if (unit(u).leases == 0) drop(u);
  }
}

void UnitGatherer::acquire(int u) {
  Unit& wanted = unit(u);
  if (!wanted.awaited) drop_awaited();
  wanted.awaited = false;
  if (wanted.memory.empty()) start(u);
  order_.push_back(layout_.units()[static_cast<std::size_t>(u)]);
  follower_[last_] = u;
  last_ = {last_.second, u};
  prefetch();
  ops_.await(wanted.work);
  ++wanted.leases;
}

/// A unit that follows itself, as the last one does when backward begins, is kept instead.
void UnitGatherer::prefetch() {
  std::pair<int, int> at = last_;
  for (int i = 0; i < prefetch_; ++i) {
    const auto next = follower_.find(at);
    if (next == follower_.end()) return;
    Unit& ahead = unit(next->second);
    if (ahead.memory.empty()) start(next->second);
    ahead.awaited = true;
    at = {at.second, next->second};
  }
}

void UnitGatherer::release(int u) noexcept {
  if (--unit(u).leases == 0 && !unit(u).awaited) drop(u);
}

TensorView UnitGatherer::whole(int p) const {
  const int f = layout_.flat_of(p);
  const Flat& flat = layout_.flats()[static_cast<std::size_t>(f)];
  const Unit& holder = units_[static_cast<std::size_t>(flat.unit)];
  const auto at = std::ranges::find(holder.flats, f) - holder.flats.begin();
  const Buffer& buffer = holder.memory[static_cast<std::size_t>(at)];
  const Flat::Entry& entry = layout_.entry_of(p);
  return buffer.view(flat.dtype, layout_.parameters()[static_cast<std::size_t>(p)].shape,
                     entry.begin * size_of(flat.dtype));
}

void UnitGatherer::end_step() {
  for (std::size_t u = 0; u < units_.size(); ++u) {
    if (units_[u].leases > 0)
      throw InvalidArgument(
          fmt::format("step() while a lease of unit '{}' is held", layout_.units()[u]));
  }
  drop_awaited();
  last_ = {-1, -1};
  require_same_order();
}

/// Before gradients are waited for: a rank that still gathers meets this here.
void UnitGatherer::require_same_order() {
  constexpr std::string_view kWhat = "the order of gathers";
  const std::vector<std::string> order = std::exchange(order_, {});
  const WaitsAtOnce alone(communicator_);
  std::uint64_t digest = kFnvBasis;
  for (const std::string& unit : order) digest = fnv1a64(unit, fnv1a64("\n", digest));
  std::vector<std::uint64_t> digests(static_cast<std::size_t>(communicator_.size()));
  const Transfer transfer{{&digest, DType::i64, {1}},
                          {digests.data(), DType::i64, {communicator_.size()}}};
  communicator_.all_gather({&transfer, 1}, kWhat).wait();
  if (std::ranges::count(digests, digest) < communicator_.size())
    require_agreement(communicator_, kWhat, order);
}

}  // namespace ashlar
