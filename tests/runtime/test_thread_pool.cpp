#include <doctest/doctest.h>

#include <chrono>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "ashlar/error.hpp"
#include "runtime/thread_pool.hpp"

using namespace ashlar;

TEST_CASE("thread pool: every task runs once, for all small numbers of tasks and threads") {
  for (int threads = 1; threads <= 5; ++threads) {
    ThreadPool pool(threads);
    CHECK(pool.threads() == threads);
    for (int tasks = 0; tasks <= 17; ++tasks) {
      std::vector<int> count(static_cast<std::size_t>(tasks), 0);
      pool.parallel(tasks, [&](int task) { ++count[static_cast<std::size_t>(task)]; });
      for (const int n : count) REQUIRE(n == 1);
    }
  }
}

TEST_CASE("thread pool: task i runs on thread i mod threads, thread 0 is the caller") {
  ThreadPool pool(3);
  std::vector<std::thread::id> owner(9);
  for (int round = 0; round < 20; ++round) {
    pool.parallel(
        9, [&](int task) { owner[static_cast<std::size_t>(task)] = std::this_thread::get_id(); });
    CHECK(owner[0] == std::this_thread::get_id());
    for (std::size_t task = 3; task < 9; ++task) REQUIRE(owner[task] == owner[task - 3]);
    CHECK(std::set(owner.begin(), owner.end()).size() == 3);
  }
}

TEST_CASE("thread pool: jobs follow each other without losing writes, spinning or asleep") {
  ThreadPool pool(4);
  std::vector<long> sums(4, 0);
  for (int round = 0; round < 2000; ++round) {
    if (round % 500 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(3));
    pool.parallel(4, [&](int task) { sums[static_cast<std::size_t>(task)] += round; });
    long expected = static_cast<long>(round) * (round + 1) / 2;
    for (const long sum : sums) REQUIRE(sum == expected);
  }
}

TEST_CASE("thread pool: the lowest failing task's exception arrives, and the pool works on") {
  for (const int threads : {1, 2, 3}) {
    ThreadPool pool(threads);
    const auto fail = [](int task) {
      if (task == 2 || task == 5 || task == 6) throw std::runtime_error(std::to_string(task));
    };
    for (int round = 0; round < 50; ++round)
      CHECK_THROWS_WITH_AS(pool.parallel(8, fail), "2", std::runtime_error);
    int ran = 0;
    pool.parallel(1, [&](int) { ++ran; });
    std::vector<int> count(8, 0);
    pool.parallel(8, [&](int task) { ++count[static_cast<std::size_t>(task)]; });
    CHECK(ran == 1);
    for (const int n : count) CHECK(n == 1);
  }
}

TEST_CASE("thread pool: nested jobs and empty pools are refused") {
  CHECK_THROWS_AS(ThreadPool(0), InvalidArgument);
  ThreadPool pool(2);
  CHECK_THROWS_AS(pool.parallel(2, [&](int) { pool.parallel(2, [](int) {}); }), InvalidArgument);
}
