// A library of attention on host memory, which computes with the CPU's kernels.
#pragma once

#include <string>
#include <vector>

#include "cuda/attention.hpp"

namespace ashlar::test {

/// What the fake was asked for; tests set the rest.
struct FakeAttention {
  bool installed = true;
  bool has_backward = true;  // plans within the workspace
  std::string plan = "fake 1 engine";
  std::vector<cuda::AttentionProblem> calls = {};
};
/// The calling thread's.
FakeAttention& fake_attention();

}  // namespace ashlar::test
