// Which of cuBLASLt's heuristics for a product is the quickest.
#pragma once

#include <algorithm>
#include <span>
#include <vector>

#include "ashlar/error.hpp"
#include "cuda/cublaslt.hpp"

namespace ashlar::perf {

/// What a later heuristic must gain on the first: less is within what runs differ by.
inline constexpr double kGain = 0.02;

struct Candidate {
  cuda::AlgorithmEntry entry;
  double seconds = 0;
};

/// The library's first `count` heuristics for a product, in its order, those left out that fail.
/// @param time seconds of a run of the product by a CublasLt that has no other choice
/// @return empty where the library has no algorithm with the product's epilogue
/// @throws CudaError where none works.
template <class Time>
std::vector<Candidate> time_candidates(const cuda::CublasLtLibrary& library, int sm,
                                       const cuda::Product& product, int count, const Time& time) {
  cuda::Algorithms none(std::span<const cuda::AlgorithmEntry>{});
  std::vector<Candidate> timed;
  for (const cuda::AlgorithmEntry& entry :
       cuda::CublasLt(library, sm, none).candidates(product, count)) {
    cuda::Algorithms only({&entry, 1});
    try {
      timed.push_back({entry, time(cuda::CublasLt(library, sm, only))});
    } catch (const CudaError&) {
    }
  }
  if (timed.empty() && product.epilogue == cuda::Epilogue::none)
    throw CudaError("no algorithm works for " + describe(product));
  return timed;
}

/// The quickest where it gains on the first, else the first.
inline const Candidate& best_of(std::span<const Candidate> timed) {
  const Candidate& quickest = *std::ranges::min_element(timed, {}, &Candidate::seconds);
  return quickest.seconds < (1 - kGain) * timed.front().seconds ? quickest : timed.front();
}

}  // namespace ashlar::perf
