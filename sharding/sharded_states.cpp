#include "sharding/sharded_states.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

namespace ashlar {

ShardedStates::ShardedStates(const FlatLayout& layout, const Registered& registered,
                             const OptimizerConfig& optimizer, const ShardedOptions& options,
                             const ElementOps& ops, Communicator& communicator) {
  const auto roles = states_of(optimizer);
  for (const Flat& flat : layout.flats()) {
    const auto add = [&](std::string_view role, DType dtype, bool sharded, Category category,
                         bool window) {
      layout_.add(state_name(flat, role), {dtype, {sharded ? flat.shard : flat.padded}}, category,
                  window);
    };
    if (registered.owned)
      add("parameter", flat.dtype, options.stage == 3, Category::parameter, true);
    if (!flat.trainable) continue;
    const DType gradient = registered.gradient_dtype(flat);
    if (!registered.keeps_gradients(flat)) {
      const bool whole = options.stage == 0 || (options.stage == 1 && registered.owned);
      add("gradient", gradient, !whole, Category::gradient,
          whole && options.reduce.value_or(gradient) == gradient);
    }
    if (has_master(flat))
      add("master", DType::f32, options.stage > 0, Category::optimizer_state, false);
    for (const std::string& role : roles)
      add(role, DType::f32, options.stage > 0, Category::optimizer_state, false);
  }
  for (const Space space : {Space::state, Space::state_window}) {
    MemoryResource& resource = space == Space::state ? *options.memory : communicator.window();
    Buffer& memory = memory_[static_cast<std::size_t>(space)];
    memory = Buffer(resource, layout_.bytes(space), Category::optimizer_state, ops.stream());
    ops.zero(memory.view(DType::u8, {memory.bytes()}));
  }
  for (const auto& [name, entry] : layout_.entries()) {
    const Buffer& memory = memory_[static_cast<std::size_t>(entry.space)];
    views_.emplace(name, memory.view(entry.type.dtype, entry.type.shape, entry.offset));
  }
}

PerCategory<std::int64_t> with_callers_memory(PerCategory<std::int64_t> bytes,
                                              const FlatLayout& layout,
                                              const Registered& registered, int stage) {
  const auto add = [&](Category category, const std::vector<TensorView>& views) {
    for (const TensorView& view : views)
      if (view.data != nullptr) bytes[static_cast<std::size_t>(category)] += view.bytes();
  };
  add(Category::parameter, registered.values);
  add(Category::gradient, registered.gradients);
  if (registered.owned || stage > 1) return bytes;
  for (const Flat& flat : layout.flats()) {
    if (!flat.trainable || registered.keeps_gradients(flat)) continue;
    for (const Flat::Entry& entry : flat.entries) {
      const auto p = static_cast<std::size_t>(entry.parameter);
      if (registered.gradients[p].data == nullptr)
        bytes[static_cast<std::size_t>(Category::gradient)] +=
            (entry.end - entry.begin) * size_of(flat.dtype);
    }
  }
  return bytes;
}

PerCategory<std::int64_t> unsharded(const FlatLayout& layout, const Registered& registered,
                                    std::size_t optimizer_states) {
  PerCategory<std::int64_t> bytes{};
  const auto add = [&](Category category, std::int64_t more) {
    bytes[static_cast<std::size_t>(category)] += more;
  };
  for (const Flat& flat : layout.flats()) {
    add(Category::parameter, flat.elements * size_of(flat.dtype));
    if (!flat.trainable) continue;
    const auto states = static_cast<std::int64_t>(optimizer_states) + (has_master(flat) ? 1 : 0);
    add(Category::gradient, flat.elements * size_of(registered.gradient_dtype(flat)));
    add(Category::optimizer_state, flat.elements * states * size_of(DType::f32));
  }
  return bytes;
}

std::string summarise(const PerCategory<std::int64_t>& per_rank,
                      const PerCategory<std::int64_t>& unsharded, bool gradients_stay) {
  const auto sum = [](const PerCategory<std::int64_t>& bytes) {
    return std::accumulate(bytes.begin(), bytes.end(), std::int64_t{0});
  };
  const std::int64_t here = sum(per_rank), whole = sum(unsharded);
  const double saved =
      std::max(0.0, 100 * (1 - static_cast<double>(here) / static_cast<double>(whole)));
  return fmt::format("model state {} per rank, {} unsharded ({:.0f} % saved){}", format_bytes(here),
                     format_bytes(whole), saved,
                     gradients_stay ? "; gradients stay whole, in the model's own memory" : "");
}

}  // namespace ashlar
