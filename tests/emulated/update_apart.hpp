// An update of many flats, flat by flat: what one launch must equal in bits.
#pragma once

#include <algorithm>
#include <vector>

#include "ashlar/op.hpp"

namespace ashlar::test {

/// Calls `run` for each flat of the row "update" alone, or for this rank's shard of it as if it
/// were a flat.
inline void update_apart(const KernelArguments& k, void (*run)(const KernelArguments&)) {
  const auto flats = static_cast<std::size_t>(k.attributes.integer("flats"));
  const std::size_t each = k.outputs.size() / flats;
  const bool sharded = k.attributes.integer("sharded") != 0;
  const std::int64_t ranks = sharded ? k.context.communicator->size() : 1;
  const std::int64_t rank = sharded ? k.context.communicator->rank() : 0;
  std::int64_t whole = 0;
  for (std::size_t f = 0; f < flats; ++f) {
    const std::int64_t n = k.inputs[f].elements(), first = whole + rank * n;
    const auto& all = k.attributes.list("segments");
    std::vector<std::int64_t> segments;
    for (std::size_t s = 0; s < all.size(); s += 3) {
      const std::int64_t begin = std::max<std::int64_t>(all[s] - first, 0);
      const std::int64_t end = std::min(all[s + 1] - first, n);
      if (begin < end) segments.insert(segments.end(), {begin, end, all[s + 2]});
    }
    Attributes attributes = k.attributes;
    attributes.set("flats", std::int64_t{1});
    attributes.set("segments", segments);
    attributes.set("sharded", std::int64_t{0});
    const auto outputs = k.outputs.subspan(f * each, each);
    std::vector<TensorView> inputs{k.inputs[f], k.inputs[flats]};
    inputs.insert(inputs.end(), outputs.begin(), outputs.end());
    run({k.context, attributes, inputs, outputs, nullptr, k.plan, k.label});
    whole += ranks * n;
  }
}

}  // namespace ashlar::test
