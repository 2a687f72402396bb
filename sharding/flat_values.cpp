#include "sharding/flat_values.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "ashlar/buffer.hpp"
#include "ashlar/communicator.hpp"
#include "ashlar/error.hpp"
#include "sharding/convert.hpp"
#include "sharding/shard_pass.hpp"

namespace ashlar {
namespace {

constexpr std::int64_t kChunk = 1 << 18;  // elements converted at a time

template <typename T>
bool all_finite(const T* values, std::int64_t n) {
  return std::all_of(values, values + n,
                     [](T value) { return std::isfinite(static_cast<float>(value)); });
}

bool all_finite(const TensorView& values) {
  if (values.dtype == DType::bf16) return all_finite(values.as<bf16>(), values.elements());
  return all_finite(values.as<float>(), values.elements());
}

void convert_view(const TensorView& from, const TensorView& to) {
  convert(from.data, from.dtype, to);
}

}  // namespace

TensorView own_part(const Flat& flat, const TensorView& view, int rank) {
  return view.elements() == flat.shard ? view : view.flat_slice(rank * flat.shard, flat.shard);
}

FlatValues::FlatValues(const FlatLayout& layout, const OptimizerConfig& optimizer,
                       StateViews states, Communicator& communicator)
    : layout_(layout),
      roles_(states_of(optimizer)),
      states_(std::move(states)),
      communicator_(communicator) {}

const TensorView& FlatValues::state(const Flat& flat, std::string_view role) const {
  return states_.at(state_name(flat, role));
}

TensorView FlatValues::own(const Flat& flat, std::string_view role) const {
  return own_part(flat, state(flat, role), communicator_.rank());
}

std::vector<ShardView> FlatValues::shards() const {
  std::vector<ShardView> views;
  for (std::size_t f = 0; f < layout_.flats().size(); ++f) {
    const Flat& flat = layout_.flats()[f];
    const auto add = [&](std::string_view role) {
      views.push_back({static_cast<int>(f), std::string(role), own(flat, role)});
    };
    add(source_role(flat));
    if (!flat.trainable) continue;
    for (const std::string& role : roles_) add(role);
  }
  return views;
}

void FlatValues::fill(const ParameterSource& source) {
  collectively(communicator_, [&] { fill_own(source); });
  spread();
}

void FlatValues::fill_own(const ParameterSource& source) {
  std::vector<float> chunk(static_cast<std::size_t>(kChunk));
  for (const Flat& flat : layout_.flats()) {
    const TensorView shard = own(flat, source_role(flat));
    const std::int64_t origin = communicator_.rank() * flat.shard;
    for (const Flat::Entry& entry : flat.entries) {
      const Parameter& parameter = layout_.parameters()[static_cast<std::size_t>(entry.parameter)];
      const std::int64_t begin = std::max(entry.begin, origin),
                         end = std::min(entry.end, origin + flat.shard);
      for (std::int64_t at = begin; at < end; at += kChunk) {
        const std::int64_t count = std::min(kChunk, end - at);
        const TensorView wide(chunk.data(), DType::f32, {count});
        source(parameter, at - entry.begin, wide);
        convert_view(wide, shard.flat_slice(at - origin, count));
      }
    }
  }
}

void FlatValues::gather_whole(const Flat& flat, std::string_view role) {
  const TensorView all = state(flat, role);
  if (all.elements() == flat.shard && layout_.ranks() > 1) return;
  const Transfer transfer{own(flat, role), all};
  communicator_.all_gather({&transfer, 1}, flat.name).wait();
}

void FlatValues::spread() {
  for (const Flat& flat : layout_.flats()) {
    if (has_master(flat)) convert_view(own(flat, "master"), own(flat, "parameter"));
    gather_whole(flat, "parameter");
    if (!flat.trainable) continue;
    if (has_master(flat)) gather_whole(flat, "master");
    for (const std::string& role : roles_) gather_whole(flat, role);
  }
}

void FlatValues::read(int p, TensorView values, std::string_view role) const {
  const Flat& flat = layout_.flats()[static_cast<std::size_t>(layout_.flat_of(p))];
  const Flat::Entry& entry = layout_.entry_of(p);
  const TensorView shard = own(flat, role.empty() ? source_role(flat) : role);
  std::vector<float> chunk(static_cast<std::size_t>(kChunk));
  for (int rank = 0; rank < communicator_.size(); ++rank) {
    const std::int64_t origin = rank * flat.shard;
    const std::int64_t begin = std::max(entry.begin, origin),
                       end = std::min(entry.end, origin + flat.shard);
    for (std::int64_t at = begin; at < end; at += kChunk) {
      const std::int64_t count = std::min(kChunk, end - at);
      const TensorView wide(chunk.data(), DType::f32, {count});
      if (communicator_.rank() == rank) convert_view(shard.flat_slice(at - origin, count), wide);
      if (rank != 0 && communicator_.rank() == rank) communicator_.send(wide, 0, flat.name).wait();
      if (communicator_.rank() != 0) continue;
      if (rank != 0) communicator_.recv(wide, rank, flat.name).wait();
      convert_view(wide, TensorView(values.data, values.dtype, {values.elements()})
                             .flat_slice(at - entry.begin, count));
    }
  }
}

int FlatValues::first_bad_gradient() const {
  const int none = static_cast<int>(layout_.parameters().size());
  int first = none;
  for (const Flat& flat : layout_.flats()) {
    if (!flat.trainable) continue;
    const TensorView shard = own(flat, "gradient");
    const std::int64_t origin = communicator_.rank() * flat.shard;
    for (const Flat::Entry& entry : flat.entries) {
      const std::int64_t begin = std::max(entry.begin, origin),
                         end = std::min(entry.end, origin + flat.shard);
      if (begin < end && !all_finite(shard.flat_slice(begin - origin, end - begin)))
        first = std::min(first, entry.parameter);
    }
  }
  std::vector<std::int32_t> all(static_cast<std::size_t>(communicator_.size()));
  std::int32_t mine = first;
  const Transfer transfer{{&mine, DType::i32, {1}},
                          {all.data(), DType::i32, {communicator_.size()}}};
  communicator_.all_gather({&transfer, 1}, "first bad gradient").wait();
  first = *std::min_element(all.begin(), all.end());
  return first == none ? -1 : first;
}

}  // namespace ashlar
