// Clipping by the global norm (Pascanu et al., arXiv:1211.5063, algorithm 1).
#pragma once

namespace ashlar {

/// What gradients are multiplied by so that their norm does not exceed `clip` (0: off).
constexpr double clip_factor(double norm, double clip) {
  return clip > 0 && norm > clip ? clip / (norm + 1e-6) : 1.0;
}

}  // namespace ashlar
