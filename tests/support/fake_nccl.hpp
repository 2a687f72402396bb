// What a test does to the fake libnccl.so: fake_nccl.cpp.
#pragma once

#include <atomic>

struct FakeNccl {
  /// Each launch begins up to so much later than its stream would let it.
  std::atomic<int> delay_us = 0;
  /// Calls stay in progress for so many looks.
  std::atomic<int> looks = 0;
  /// What ncclCommInitRankConfig returns, when not 0.
  std::atomic<int> connect_result = 0;
  /// This rank's launches find the network gone, and hang.
  std::atomic<int> cut_off = -1;
  /// This rank's calls of ncclRecv are refused.
  std::atomic<int> refused = -1;

  /// How long a communicator's end waits for its work to be gone from streams and recordings.
  static constexpr int kPatienceSeconds = 20;

  std::atomic<int> calls = 0;  // of collectives and messages
  std::atomic<int> stuck = 0;  // ends of communicators that waited for longer
  std::atomic<int> aborts = 0;
  std::atomic<int> communicators = 0;  // that live
  std::atomic<int> launches = 0;
};

/// The library's name of this function is "fake_nccl".
extern "C" FakeNccl* fake_nccl();
