// A library of attention on host memory, which computes with the CPU's kernels.
#pragma once

#include <vector>

#include "cuda/attention.hpp"

namespace ashlar::test {

/// What the fake was asked for; tests set `installed`.
struct FakeAttention {
  bool installed = true;
  bool has_backward = true;  // plans within the workspace
  std::vector<cuda::AttentionProblem> calls;
};
FakeAttention& fake_attention();

}  // namespace ashlar::test
