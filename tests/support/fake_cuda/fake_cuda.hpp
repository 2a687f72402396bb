// What a test does to the fake CUDA, and what it sees there:
// memory.cpp, streams.cpp. One thread uses it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

struct FakeCuda {
  static constexpr std::int64_t kPage = std::int64_t{2} << 20;

  int devices = 1;
  std::int64_t capacity = std::int64_t{1} << 30;  // of each device
  std::int64_t calls = 0;                         // for memory or events
  std::int64_t failing = -1;  // number of the call that does, from 0: out of memory or unknown
  std::string no_room;        // for page tables: "map" or "set_access" is out of memory
  bool broken = false;        // a kernel has failed: waits, queries and new work do too
  bool lose_waits = false;    // streams do not wait for events

  /// What CUDA would have refused or what would have met another's bytes.
  std::vector<std::string> problems;

  // What lives.
  std::vector<std::int64_t> used;  // by device: bytes of physical memory
  std::int64_t reservations = 0;   // of addresses, segments included
  std::int64_t handles = 0;        // not released
  std::int64_t pinned = 0;         // blocks
  std::int64_t streams = 0;
  std::int64_t events = 0;
  int current = 0;       // device
  std::int64_t set = 0;  // calls that made a device current
};

extern "C" {
FakeCuda* fake_cuda();
/// Runs one piece of work of a stream that waits for none, if there is one. @param choice any
void fake_cuda_step(unsigned choice);
/// Runs everything.
void fake_cuda_drain();
}
