// What a test does to the fake libcublasLt.so.13, and what it sees there: fake_cublaslt.cpp.
#pragma once

#include <atomic>
#include <cstdint>

struct FakeCublasLt {
  // What the calls of that name return, when not 0.
  std::atomic<int> create_result = 0;
  std::atomic<int> matmul_result = 0;
  std::atomic<int> gradient_result = 0;  // of the heuristic for an epilogue with a bias gradient
  /// There is no algorithm for anything.
  std::atomic<bool> no_algorithm = false;
  /// Workspace that algorithms need; -1: all that the caller lets them have.
  std::atomic<std::int64_t> workspace = -1;

  /// Of handles made from now on: which way of adding their first heuristic has; later ones have
  /// the next. 0: in double; others in f32, each with other roundings.
  std::atomic<int> first_way = 0;
  /// Heuristics there are for a product.
  std::atomic<int> candidates = 1;

  std::atomic<int> handles = 0;       // that live
  std::atomic<int> heuristics = 0;    // asked for; each answer is another algorithm
  std::atomic<int> products = 0;      // done
  std::atomic<int> fused_biases = 0;  // of these
  std::atomic<int> fused_gradients = 0;
  std::atomic<int> last_algorithm = 0, last_way = 0;
};

extern "C" FakeCublasLt* fake_cublaslt();
