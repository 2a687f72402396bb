// Streams of the CPU: the inline one, and what its threads add to runtime/stream_cases.cpp.
#include <doctest/doctest.h>

#include <stdexcept>
#include <thread>

#include "ashlar/error.hpp"
#include "runtime/stream_cases.hpp"

using namespace ashlar;

Device test::device_of_streams() { return {}; }

TEST_CASE("stream: the inline stream works at once on the caller") {
  const StreamRef stream;
  CHECK(stream.is_inline());
  std::thread::id worker;
  stream.enqueue([&] { worker = std::this_thread::get_id(); });
  CHECK(worker == std::this_thread::get_id());
  CHECK(stream.record().done());
  CHECK_THROWS_AS(stream.enqueue([] { throw std::runtime_error("at once"); }), std::runtime_error);
  stream.synchronize();
}

TEST_CASE("stream: a stream may not wait for itself to become empty") {
  const Stream stream;
  const StreamRef ref = stream;
  ref.enqueue([ref] { ref.synchronize(); });
  CHECK_THROWS_AS(ref.synchronize(), InvalidArgument);
}
