// What causal language models share: how parameters are declared, and the ends around the blocks.
#pragma once

#include <memory>
#include <string>

#include "ashlar/graph.hpp"
#include "ashlar/nn/language_model.hpp"

namespace ashlar {

class Decoder {
 public:
  /// @throws InvalidArgument when the model has no `how.sequence` positions.
  Decoder(Tracer& tracer, const ModelTrace& how, const std::string& name, std::int64_t positions);
  virtual ~Decoder() = default;

  Value loss();
  void logits();
  void next_token();

 protected:
  /// (B, T) tokens -> (B, T, C), normalised.
  virtual Value hidden(Value tokens) = 0;
  virtual Value head_weight() = 0;  // (V, C)

  Value weight(const std::string& name, const Shape& shape, double deviation = 0.02);
  Value vector(const std::string& name, std::int64_t size, double value = 0);
  /// GPT-2's (Radford et al. 2019, section 2.3), for what ends a residual branch.
  static double residual_deviation(std::int64_t layers);

  Tracer& t_;
  const ModelTrace& how_;

 private:
  Value declare(const std::string& name, const Shape& shape, Initializer initializer);
  Value tokens();
};

/// Both must outlive it.
std::unique_ptr<Decoder> decoder(Tracer& tracer, const GptConfig& config, const ModelTrace& how);
std::unique_ptr<Decoder> decoder(Tracer& tracer, const LlamaConfig& config, const ModelTrace& how);

}  // namespace ashlar
