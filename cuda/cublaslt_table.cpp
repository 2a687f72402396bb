// The committed choices of cuBLASLt's algorithms: the lines that perf_gpu_products prints. None has
// been measured yet: every product takes the library's first heuristic.
#include "cuda/cublaslt_algorithms.hpp"

namespace ashlar::cuda {

std::span<const AlgorithmEntry> committed_algorithms() {
  static const std::vector<AlgorithmEntry> table = {};
  return table;
}

}  // namespace ashlar::cuda
