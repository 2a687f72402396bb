// Traces of training steps as they look to an allocator, made from a few numbers.
#include <cmath>
#include <random>

#include "ashlar/allocation_trace.hpp"

namespace ashlar {
namespace {

constexpr std::uint64_t kCompute = 0;
constexpr std::uint64_t kCommunication = 1;

/// A trace and what is needed to write one: names, and frees by block.
class Script {
 public:
  std::uint32_t name(std::string text) {
    trace_.names.push_back(std::move(text));
    return static_cast<std::uint32_t>(trace_.names.size() - 1);
  }
  std::uint32_t allocate(std::int64_t bytes, Category category, std::uint32_t name = 0,
                         std::uint64_t stream = kCompute) {
    const std::uint32_t block = trace_.allocate(bytes, category, stream, name);
    allocations_.push_back(trace_.operations.size() - 1);
    return block;
  }
  void free(std::uint32_t block, std::uint64_t stream = kCompute) {
    trace_.free(trace_.operations[allocations_[block]], stream);
  }
  void free(std::vector<std::uint32_t>& blocks) {
    for (; !blocks.empty(); blocks.pop_back()) free(blocks.back());
  }
  Trace take() { return std::move(trace_); }

 private:
  Trace trace_;
  std::vector<std::size_t> allocations_;  // operation of each block
};

struct LayerNames {
  std::uint32_t gathered, kept, scratch, gradient, shard;
};

/// One transformer layer's activations: what backward needs stays, the rest goes at once.
void forward_layer(Script& script, std::int64_t tokens, std::int64_t width, const LayerNames& names,
                   std::vector<std::uint32_t>& kept) {
  const std::int64_t row = 2 * tokens * width;  // bytes of one (tokens, width) in bf16
  const auto keep = [&](std::int64_t bytes) {
    kept.push_back(script.allocate(bytes, Category::activation, names.kept));
  };
  keep(row);
  keep(8 * tokens);
  keep(3 * row);
  keep(row);
  keep(4 * tokens * (width / 128));
  const std::uint32_t projected = script.allocate(row, Category::workspace, names.scratch);
  keep(row);
  script.free(projected);
  keep(8 * tokens);
  keep(4 * row);
  const std::uint32_t hidden = script.allocate(4 * row, Category::workspace, names.scratch);
  keep(row);
  script.free(hidden);
}

/// Backward of the same: temporaries, and the kept ones die last first.
void backward_layer(Script& script, std::int64_t tokens, std::int64_t width,
                    const LayerNames& names, std::vector<std::uint32_t>& kept) {
  const std::int64_t row = 2 * tokens * width;
  const std::uint32_t hidden = script.allocate(4 * row, Category::workspace, names.scratch);
  const std::uint32_t wide = script.allocate(4 * row, Category::workspace, names.scratch);
  script.free(kept.back());
  kept.pop_back();
  script.free(kept.back());
  kept.pop_back();
  script.free(hidden);
  const std::uint32_t narrow = script.allocate(row, Category::workspace, names.scratch);
  script.free(wide);
  const std::uint32_t triple = script.allocate(3 * row, Category::workspace, names.scratch);
  script.free(kept);
  script.free(narrow);
  script.free(triple);
}

LayerNames names_of_layer(Script& script, int layer) {
  const std::string prefix = "layer " + std::to_string(layer) + " ";
  return {script.name(prefix + "parameters"), script.name(prefix + "activation"),
          script.name(prefix + "scratch"), script.name(prefix + "gradient"),
          script.name(prefix + "gradient shard")};
}

/// Parameter shard, fp32 master, two moments.
void allocate_states(Script& script, std::int64_t parameters) {
  script.allocate(2 * parameters, Category::parameter);
  for (int i = 0; i < 3; ++i) script.allocate(4 * parameters, Category::optimizer_state);
}

}  // namespace

Trace fsdp_trace(const FsdpTrace& shape) {
  Script script;
  const auto layers = static_cast<std::size_t>(shape.layers);
  std::vector<LayerNames> names;
  for (int i = 0; i < shape.layers; ++i) names.push_back(names_of_layer(script, i));
  const auto parameters = [&](std::size_t layer) {
    const std::int64_t block = 12 * shape.width * shape.width + 13 * shape.width;
    return layer == 0 ? block + 32'000 * shape.width : block;  // the embedding lives in the first
  };
  const auto shard = [&](std::size_t layer) {
    return align_up((parameters(layer) + shape.ranks - 1) / shape.ranks, 64);
  };
  for (std::size_t i = 0; i < layers; ++i) allocate_states(script, shard(i));
  for (int step = 0; step < shape.steps; ++step) {
    std::vector<std::uint32_t> gathered(layers);
    std::vector<std::vector<std::uint32_t>> kept(layers);
    std::vector<std::uint32_t> shards;
    const auto gather = [&](std::size_t i) {
      gathered[i] = script.allocate(2 * shard(i) * shape.ranks, Category::gathered_parameter,
                                    names[i].gathered, kCommunication);
    };
    gather(0);
    for (std::size_t i = 0; i < layers; ++i) {
      if (i + 1 < layers) gather(i + 1);
      forward_layer(script, shape.tokens, shape.width, names[i], kept[i]);
      script.free(gathered[i]);
    }
    gather(layers - 1);
    for (std::size_t i = layers; i-- > 0;) {
      if (i > 0) gather(i - 1);
      const std::uint32_t gradient =
          script.allocate(2 * shard(i) * shape.ranks, Category::gradient, names[i].gradient);
      backward_layer(script, shape.tokens, shape.width, names[i], kept[i]);
      script.free(gathered[i]);
      shards.push_back(
          script.allocate(4 * shard(i), Category::gradient, names[i].shard, kCommunication));
      script.free(gradient, kCommunication);
    }
    script.free(shards);
  }
  return script.take();
}

Trace variable_lengths_trace(unsigned seed, int steps) {
  Script script;
  std::mt19937 random(seed);
  constexpr int kLayers = 16;
  constexpr std::int64_t kWidth = 1024;
  std::vector<LayerNames> names;
  for (int i = 0; i < kLayers; ++i) {
    names.push_back(names_of_layer(script, i));
    allocate_states(script, 12 * kWidth * kWidth);
  }
  for (int step = 0; step < steps; ++step) {
    const auto tokens = static_cast<std::int64_t>(512 + random() % 7680);
    const std::uint32_t batch = script.allocate(8 * tokens, Category::input);
    std::vector<std::vector<std::uint32_t>> kept(kLayers);
    std::vector<std::uint32_t> gradients;
    for (std::size_t i = 0; i < kLayers; ++i)
      forward_layer(script, tokens, kWidth, names[i], kept[i]);
    const std::uint32_t logits =
        script.allocate(4 * tokens * 8000, Category::activation, names.back().kept);
    script.free(logits);
    for (std::size_t i = kLayers; i-- > 0;) {
      backward_layer(script, tokens, kWidth, names[i], kept[i]);
      gradients.push_back(
          script.allocate(24 * kWidth * kWidth, Category::gradient, names[i].gradient));
    }
    script.free(gradients);
    script.free(batch);
  }
  return script.take();
}

Trace random_sizes_trace(unsigned seed, int operations) {
  Script script;
  std::mt19937 random(seed);
  std::vector<std::uint32_t> live;
  for (int i = 0; i < operations; ++i) {
    if (live.size() < 64 || (live.size() < 512 && random() % 2 == 0)) {
      const double power = 9 + 17 * static_cast<double>(random()) / 0x1p32;
      live.push_back(script.allocate(static_cast<std::int64_t>(std::exp2(power)),
                                     static_cast<Category>(random() % kCategories), 0,
                                     random() % 2));
    } else {
      std::swap(live[random() % live.size()], live.back());
      script.free(live.back(), random() % 2);
      live.pop_back();
    }
  }
  return script.take();
}

Trace steady_step_trace(int steps) {
  Script script;
  constexpr int kLayers = 12;
  constexpr std::int64_t kWidth = 768;
  constexpr std::int64_t kTokens = 4096;
  std::vector<LayerNames> names;
  for (int i = 0; i < kLayers; ++i) {
    names.push_back(names_of_layer(script, i));
    allocate_states(script, 12 * kWidth * kWidth);
  }
  for (int step = 0; step < steps; ++step) {
    std::vector<std::vector<std::uint32_t>> kept(kLayers);
    std::vector<std::uint32_t> gradients;
    for (std::size_t i = 0; i < kLayers; ++i)
      forward_layer(script, kTokens, kWidth, names[i], kept[i]);
    for (std::size_t i = kLayers; i-- > 0;) {
      gradients.push_back(
          script.allocate(24 * kWidth * kWidth, Category::gradient, names[i].gradient));
      backward_layer(script, kTokens, kWidth, names[i], kept[i]);
    }
    script.free(gradients);
  }
  return script.take();
}

}  // namespace ashlar
