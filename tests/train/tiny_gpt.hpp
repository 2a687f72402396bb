// A GPT of three units' kinds, small enough for hundreds of runs, and what it is trained on.
#pragma once

#include <cstdint>

#include "ashlar/nn/gpt.hpp"
#include "ashlar/train_step.hpp"
#include "base/math/philox.hpp"

namespace ashlar {

inline constexpr std::int64_t kTinySequence = 6;

inline GptConfig tiny_gpt(std::int64_t layers = 2, bool tied = true) {
  return {"tiny", layers, 2, 16, kTinySequence + 1, 37, 30, tied, 1e-5};
}

inline LossModel tiny_gpt_loss(const GptConfig& model, const ModelTrace& how) {
  return [=](Tracer& t) { return gpt_loss(t, model, how); };
}

/// Tokens and targets that depend on the global index of the sample.
inline void load_tokens(const Batch& batch, std::int64_t step, std::int64_t first,
                        std::int64_t vocabulary = 37) {
  const auto tokens = batch.at("tokens").span<std::int32_t>();
  const auto targets = batch.at("targets").span<std::int32_t>();
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    const auto at = static_cast<std::uint64_t>(first * kTinySequence) + i;
    const auto word = philox(static_cast<std::uint64_t>(step), 1, at)[0];
    tokens[i] = static_cast<std::int32_t>(word % static_cast<std::uint32_t>(vocabulary));
    targets[i] = (tokens[i] * 7 + 1) % static_cast<std::int32_t>(vocabulary);
  }
}

}  // namespace ashlar
