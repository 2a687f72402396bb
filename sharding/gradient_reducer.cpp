#include "sharding/gradient_reducer.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <thread>

#include "ashlar/device_memory.hpp"
#include "ashlar/error.hpp"
#include "comm/reduce.hpp"
#include "comm/settle.hpp"
#include "sharding/collective_ops.hpp"
#include "sharding/convert.hpp"

namespace ashlar {
namespace {

/// One travels while the next is filled.
constexpr std::size_t kMostInFlight = 2;

void require_gradient(const Parameter& parameter, const TensorView& gradient) {
  const auto refuse = [&](const std::string& why) {
    throw InvalidArgument(fmt::format("the gradient of parameter '{}' {}", parameter.name, why));
  };
  if (gradient.shape != parameter.shape) {
    refuse(fmt::format("has shape {}, the parameter {}", to_string(gradient.shape),
                       to_string(parameter.shape)));
  }
  if (!gradient.contiguous()) refuse("is not contiguous");
  if (gradient.data == nullptr && gradient.elements() > 0) refuse("is a null pointer");
  if (!convertible(gradient.dtype, DType::f32))
    refuse(fmt::format("is {}", name_of(gradient.dtype)));
}

}  // namespace

GradientReducer::GradientReducer(const FlatLayout& layout, const Registered& registered,
                                 const ShardedOptions& options, const StateViews& states,
                                 ElementOps& ops, MemoryResource& pool, Communicator& communicator)
    : layout_(layout),
      registered_(registered),
      options_(options),
      ops_(ops),
      pool_(pool),
      communicator_(communicator),
      travels_(layout.flats().size()) {
  for (const Flat& flat : layout.flats()) {
    const auto found = states.find(state_name(flat, "gradient"));
    kept_.push_back(found == states.end() ? nullptr : &found->second);
  }
  make_buckets();
  if (ops.on_device()) allocate_squares();
  restart();
}

GradientReducer::~GradientReducer() {
  detail::settle_all({&communicator_}, in_flight_,
                     [](InFlight& flight) -> Work& { return flight.work; });
}

void GradientReducer::allocate_squares() {
  const auto take = [&](std::int64_t bytes) {
    return Buffer(*options_.memory, bytes, Category::communication, ops_.stream());
  };
  on_device_ = take(static_cast<std::int64_t>(fresh_.size() * sizeof(double)));
  if (options_.replicas == nullptr) return;
  std::int64_t longest = 0;
  for (const Flat& flat : layout_.flats()) longest = std::max(longest, flat.shard);
  partials_ = take(ops_.square_workspace(longest));
}

void GradientReducer::make_buckets() {
  std::int64_t bytes = options_.bucket_bytes;
  for (int unit = static_cast<int>(layout_.units().size()) - 1; unit >= 0; --unit) {
    for (int f = 0; f < static_cast<int>(layout_.flats().size()); ++f) {
      if (flat(f).unit != unit || !flat(f).trainable) continue;
      if (bytes >= options_.bucket_bytes || buckets_.back().size() == kMostFlats) {
        buckets_.emplace_back();
        bytes = 0;
      }
      buckets_.back().push_back(f);
      bytes += flat(f).padded * size_of(wire(f));
    }
  }
  place_of_.resize(layout_.flats().size());
  for (const std::vector<int>& bucket : buckets_)
    for (const int f : bucket) {
      place_of_[static_cast<std::size_t>(f)] = fresh_.size();
      fresh_.push_back(0);
    }
}

void GradientReducer::restart() {
  launched_ = 0;
  touched_ = false;
  in_vain_ = false;
  squares_.assign(layout_.flats().size(), 0);
  for (int f = 0; f < static_cast<int>(travels_.size()); ++f) {
    travel(f).clean = false;
    travel(f).missing = flat(f).entries.size();
    travel(f).ready.assign(flat(f).entries.size(), false);
    travel(f).copied.assign(flat(f).entries.size(), false);
    if (flat(f).trainable) touched_ |= registered_.keeps_gradients(flat(f));
  }
}

void GradientReducer::clear() {
  for (const TensorView& gradient : registered_.gradients)
    if (gradient.data != nullptr) ops_.zero(gradient);
  for (int f = 0; f < static_cast<int>(travels_.size()); ++f) {
    if (!flat(f).trainable || !registered_.owned) continue;
    if (kept(f) != nullptr && kept(f)->elements() == flat(f).padded) ops_.zero(*kept(f));
    travel(f).local.reset();
    travel(f).clean = true;
  }
}

DType GradientReducer::wire(int f) const {
  return options_.reduce.value_or(registered_.gradient_dtype(flat(f)));
}

std::size_t GradientReducer::entry_index(int parameter) const {
  const auto& entries = flat(layout_.flat_of(parameter)).entries;
  const auto found = std::ranges::find(entries, parameter, &Flat::Entry::parameter);
  return static_cast<std::size_t>(found - entries.begin());
}

/// All gradients of a flat that the optimizer owns, [padded].
TensorView GradientReducer::whole_local(int f) {
  const Flat& layout = flat(f);
  Travel& t = travel(f);
  TensorView whole;
  if (kept(f) != nullptr && options_.stage <= 1) {
    whole = *kept(f);
    if (!t.clean) ops_.zero(whole);
  } else {
    const DType dtype = registered_.gradient_dtype(layout);
    const bool fresh = t.local.data() == nullptr;
    if (fresh) t.local = Buffer(pool_, layout.padded * size_of(dtype), Category::gradient);
    whole = t.local.view(dtype, {layout.padded});
    if (fresh) ops_.zero(whole);
  }
  t.clean = true;
  return whole;
}

TensorView GradientReducer::local_of(int p) {
  touched_ = true;
  const TensorView first = whole_local(layout_.flat_of(p)).flat_slice(layout_.entry_of(p).begin, 0);
  return {first.data, first.dtype, parameter(p).shape};
}

TensorView GradientReducer::local(int p) {
  if (travel(layout_.flat_of(p)).ready[entry_index(p)]) {
    throw InvalidArgument(fmt::format(
        "the gradient of parameter '{}' is asked for after it was reported", parameter(p).name));
  }
  return local_of(p);
}

void GradientReducer::note_ready(int p) {
  Travel& t = travel(layout_.flat_of(p));
  const std::size_t entry = entry_index(p);
  if (t.ready[entry]) {
    throw InvalidArgument(fmt::format(
        "the gradient of parameter '{}' was reported twice in one step", parameter(p).name));
  }
  t.ready[entry] = true;
  --t.missing;
  touched_ = true;
}

void GradientReducer::ready(int p) {
  const TensorView& known = registered_.gradients[static_cast<std::size_t>(p)];
  if (!registered_.owned && known.data == nullptr && parameter(p).shape.elements() > 0) {
    throw InvalidArgument(fmt::format(
        "the gradient of parameter '{}' is in no memory that was registered: report it with its "
        "view",
        parameter(p).name));
  }
  note_ready(p);
  if (options_.overlap) launch_complete();
}

void GradientReducer::ready(int p, const TensorView& gradient) {
  require_gradient(parameter(p), gradient);
  note_ready(p);
  const Flat::Entry& entry = layout_.entry_of(p);
  const int f = layout_.flat_of(p);
  const TensorView to = registered_.owned
                            ? local_of(p)
                            : whole_send(f).flat_slice(entry.begin, entry.end - entry.begin);
  ops_.convert(gradient.data, gradient.dtype, TensorView(to.data, to.dtype, {to.elements()}));
  if (!registered_.owned) travel(f).copied[entry_index(p)] = true;
  if (options_.overlap) launch_complete();
}

void GradientReducer::launch_complete() {
  const auto complete = [&](int f) { return travel(f).missing == 0; };
  while (launched_ < buckets_.size() && std::ranges::all_of(buckets_[launched_], complete) &&
         has_room())
    launch(launched_);
}

/// Peers that are a little late are waited for, so that no more than two buckets are in use. Not
/// for long: a rank that leaves a gradient out reduces in step(), and may need this one before.
bool GradientReducer::has_room() {
  if (in_flight_.size() < kMostInFlight) return true;
  const InFlight& oldest = in_flight_.front();
  if (!lands_alone(oldest.bucket)) return false;
  const auto end = std::chrono::steady_clock::now() + patience_;
  while (!oldest.work.done()) {
    if (in_vain_) return false;
    std::this_thread::sleep_for(std::chrono::microseconds(20));
    if (std::chrono::steady_clock::now() < end) continue;
    in_vain_ = true;
    patience_ /= 4;
  }
  return true;
}

/// The buffer that a registered flat, or one in another wire type, is sent from.
TensorView GradientReducer::whole_send(int f) {
  Travel& t = travel(f);
  if (t.send.data() == nullptr) {
    t.send = Buffer(pool_, flat(f).padded * size_of(wire(f)), Category::communication);
    clear_gaps(flat(f), t.send.view(wire(f), {flat(f).padded}), ops_);
  }
  return t.send.view(wire(f), {flat(f).padded});
}

/// All local gradients of a flat in the wire type; what is missing is zero.
TensorView GradientReducer::outgoing(int f) {
  const Flat& layout = flat(f);
  if (registered_.owned) {
    const TensorView whole = whole_local(f);
    if (!travels_apart(f)) return whole;
    const TensorView send = whole_send(f);
    ops_.convert(whole.data, whole.dtype, send);
    return send;
  }
  const TensorView send = whole_send(f);
  for (std::size_t e = 0; e < layout.entries.size(); ++e) {
    if (travel(f).copied[e]) continue;
    const Flat::Entry& entry = layout.entries[e];
    const TensorView part = send.flat_slice(entry.begin, entry.end - entry.begin);
    const TensorView& gradient = registered_.gradients[static_cast<std::size_t>(entry.parameter)];
    if (gradient.data != nullptr)
      ops_.convert(gradient.data, gradient.dtype, part);
    else
      ops_.zero(part);
  }
  return send;
}

/// Where this rank's part of the sum goes.
TensorView GradientReducer::target(int f) {
  const Flat& layout = flat(f);
  if (kept(f) != nullptr) return own_part(layout, *kept(f), communicator_.rank());
  Travel& t = travel(f);
  if (!travels_apart(f))
    return own_part(layout, t.send.view(wire(f), {layout.padded}), communicator_.rank());
  const DType dtype = registered_.gradient_dtype(layout);
  const std::int64_t elements = options_.stage == 0 ? layout.padded : layout.shard;
  t.sum = Buffer(pool_, elements * size_of(dtype), Category::communication);
  return own_part(layout, t.sum.view(dtype, {elements}), communicator_.rank());
}

void GradientReducer::launch(std::size_t bucket) {
  while (in_flight_.size() >= kMostInFlight) retire();
  std::vector<Transfer> transfers;
  for (const int f : buckets_[bucket]) {
    const TensorView send = outgoing(f);
    transfers.push_back({send, target(f)});
  }
  ReduceOptions options;
  options.sum_of_squares = {squares_of(buckets_[bucket].front()), transfers.size()};
  InFlight& flight = in_flight_.emplace_back(InFlight{bucket, {}, options.sum_of_squares});
  flight.work = communicator_.reduce_scatter(transfers, options,
                                             flat(buckets_[bucket].front()).name, ops_.stream());
  ++launched_;
}

void GradientReducer::retire() {
  InFlight& flight = in_flight_.front();
  const std::vector<int>& bucket = buckets_[flight.bucket];
  ops_.await(flight.work);
  for (std::size_t i = 0; i < bucket.size() && !ops_.on_device(); ++i)
    squares_[static_cast<std::size_t>(bucket[i])] = flight.squares[i];
  for (const int f : bucket) land(f);
  in_flight_.pop_front();
}

/// From the device, once everything has been done there.
void GradientReducer::fetch_squares() {
  copy_async(fresh_.data(), on_device_.data(), on_device_.bytes(), ops_.stream());
  ops_.synchronize();
  for (const std::vector<int>& bucket : buckets_)
    for (const int f : bucket)
      squares_[static_cast<std::size_t>(f)] = fresh_[place_of_[static_cast<std::size_t>(f)]];
}

/// Over replicas in finish(): until then the sum of the group is kept, and nobody waits for others.
bool GradientReducer::summed_late(int f) const {
  return options_.replicas != nullptr && options_.stage >= 1 && kept(f) != nullptr;
}

/// Whether land() sends nothing.
bool GradientReducer::lands_alone(std::size_t bucket) const {
  if (options_.stage == 0) return false;
  return options_.replicas == nullptr ||
         std::ranges::all_of(buckets_[bucket], [&](int f) { return summed_late(f); });
}

/// The sum is on this rank: over the replicas, whole at stage 0, into the caller's memory.
void GradientReducer::land(int f) {
  const Flat& layout = flat(f);
  Travel& t = travel(f);
  TensorView all;  // what holds the sum: whole or the own part
  if (kept(f) != nullptr) {
    all = *kept(f);
  } else if (t.sum.data() != nullptr) {
    const DType dtype = registered_.gradient_dtype(layout);
    all = t.sum.view(dtype, {t.sum.bytes() / size_of(dtype)});
  } else {
    all = t.send.view(wire(f), {layout.padded});
  }
  const TensorView own = own_part(layout, all, communicator_.rank());
  if (options_.replicas != nullptr && !summed_late(f)) sum_over_replicas(f, own);
  const bool whole = options_.stage == 0;
  if (whole) {
    const Transfer transfer{own, all};
    ops_.await(communicator_.all_gather({&transfer, 1}, layout.name, ops_.stream()));
  }
  if (kept(f) == nullptr)
    copy_out(layout, whole ? all : own, whole ? 0 : communicator_.rank() * layout.shard,
             registered_.gradients, ops_);
  t.send.reset();
  t.sum.reset();
  if (options_.stage >= 2) t.local.reset();
}

void GradientReducer::sum_over_replicas(int f, const TensorView& own) {
  ops_.await(options_.replicas->all_reduce(own, flat(f).name, ops_.stream()));
  if (ops_.on_device()) return ops_.square(own, {squares_of(f), DType::f64, {1}}, partials_.data());
  squares_[static_cast<std::size_t>(f)] = detail::sum_of_squares(own);
}

void GradientReducer::finish() {
  std::optional<WaitsAtOnce> alone;
  if (!ops_.on_device() && in_flight_.empty() && buckets_.size() - launched_ <= 1)
    alone.emplace(communicator_);
  while (launched_ < buckets_.size()) launch(launched_);
  while (!in_flight_.empty()) retire();
  for (const std::vector<int>& bucket : buckets_)
    for (const int f : bucket)
      if (summed_late(f)) sum_over_replicas(f, own_part(flat(f), *kept(f), communicator_.rank()));
  if (ops_.on_device()) fetch_squares();
}

TensorView GradientReducer::sum(int f, const Flat::Entry& entry, std::int64_t begin,
                                std::int64_t end) const {
  if (kept(f) == nullptr)
    return registered_.gradients[static_cast<std::size_t>(entry.parameter)].flat_slice(
        begin - entry.begin, end - begin);
  const bool whole = kept(f)->elements() == flat(f).padded;
  const std::int64_t first = whole ? 0 : communicator_.rank() * flat(f).shard;
  return kept(f)->flat_slice(begin - first, end - begin);
}

}  // namespace ashlar
