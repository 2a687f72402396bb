// The committed choices of cuBLASLt's algorithms, one line each as table_line() prints it. None has
// been measured yet: every product takes the library's first heuristic.
#include "cuda/cublaslt_algorithms.hpp"

namespace ashlar::cuda {

std::span<const AlgorithmEntry> committed_algorithms() { return {}; }

}  // namespace ashlar::cuda
