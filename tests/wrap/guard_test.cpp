// A parameter that is touched after its lease is named, and the program ends.
#include <doctest/doctest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <functional>
#include <string>

#include "ashlar/communicator.hpp"
#include "ashlar/sharded_optimizer.hpp"

namespace ashlar::test {
namespace {

struct Ending {
  std::string text;  // on stderr
  int signal = 0;
};

/// What becomes of a process that runs `body`.
Ending ending_of(const std::function<void()>& body) {
  std::array<int, 2> ends{};
  REQUIRE(::pipe(ends.data()) == 0);
  const pid_t child = ::fork();
  if (child == 0) {
    ::dup2(ends[1], STDERR_FILENO);
    std::signal(SIGSEGV, SIG_DFL);  // doctest has one of its own
    body();
    ::_exit(0);
  }
  ::close(ends[1]);
  Ending ending;
  std::array<char, 512> buffer{};
  for (ssize_t n = 0; (n = ::read(ends[0], buffer.data(), buffer.size())) > 0;)
    ending.text.append(buffer.data(), static_cast<std::size_t>(n));
  ::close(ends[0]);
  int status = 0;
  ::waitpid(child, &status, 0);
  if (WIFSIGNALED(status)) ending.signal = WTERMSIG(status);
  return ending;
}

ShardedOptimizer optimizer_of(Communicator& world, bool guard) {
  ParameterList list;
  list.allocate("first", {1000}, DType::f32, {.unit = "lower"});
  list.allocate("second", {500}, DType::f32, {.unit = "lower"});
  list.allocate("third", {3}, DType::f32, {.unit = "upper"});
  return {list, world, AdamW{}, {.stage = 3, .guard = guard}};
}

float* address_of(ShardedOptimizer& optimizer, const char* unit, const char* parameter) {
  return optimizer.gather(unit)[parameter].as<float>();  // the lease ends here
}

}  // namespace

TEST_CASE("sharded optimizer: who touches a released parameter is told its name") {
  for (const char* touched : {"first", "second", "third"}) {
    const Ending ending = ending_of([&] {
      const auto world = self_communicator();
      ShardedOptimizer optimizer = optimizer_of(*world, true);
      const char* unit = touched == std::string("third") ? "upper" : "lower";
      volatile float* stale = address_of(optimizer, unit, touched);
      for (int again = 0; again < 3; ++again) address_of(optimizer, "lower", "first");
      stale[2] = stale[1];
    });
    CHECK(ending.text.find(std::string("parameter '") + touched +
                           "' was touched after the lease") != std::string::npos);
    CHECK(ending.signal != 0);
  }
}

TEST_CASE("sharded optimizer: the guard leaves other faults and proper use alone") {
  const Ending fine = ending_of([] {
    const auto world = self_communicator();
    ShardedOptimizer optimizer = optimizer_of(*world, true);
    for (int round = 0; round < 5000; ++round) {  // more than are kept from reuse
      const auto lease = optimizer.gather("lower");
      lease["second"].as<float>()[7] = 1;
    }
  });
  CHECK(fine.signal == 0);
  CHECK(fine.text.empty());
  const Ending elsewhere = ending_of([] {
    const auto world = self_communicator();
    const ShardedOptimizer optimizer = optimizer_of(*world, true);
    void* const page = ::mmap(nullptr, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    *static_cast<volatile int*>(page) = 1;
  });
  CHECK(elsewhere.signal == SIGSEGV);
  CHECK(elsewhere.text.find("parameter") == std::string::npos);
  const Ending sent = ending_of([] {
    const auto world = self_communicator();
    const ShardedOptimizer optimizer = optimizer_of(*world, true);
    std::raise(SIGSEGV);
  });
  CHECK(sent.signal == SIGSEGV);
}

}  // namespace ashlar::test
