#include <doctest/doctest.h>

#include <cstdlib>

#include "comm/conformance.hpp"
#include "comm/values.hpp"

namespace ashlar {

TEST_CASE("mpi: the world conforms") {
  CHECK(world().name() == "mpi");
  test::check_conformance(world());
}

TEST_CASE("mpi: a window is what peers can read in place, unless it is switched off or refused") {
  const char* choice = std::getenv("ASHLAR_WINDOW");
  const bool shared = choice == nullptr || std::string_view(choice) == "on";
  CHECK((&world().window() != &host_memory()) == shared);
}

// Large enough for several pieces through staging buffers and messages.
TEST_CASE("mpi: private and shared memory give the same bits") {
  const int size = world().size();
  const std::int64_t count = 1'500'007;
  for (MemoryResource* memory : {&host_memory(), &world().window()}) {
    const test::Flat send = test::filled(DType::bf16, count * size,
                                         static_cast<std::uint64_t>(world().rank() + 1), *memory);
    const test::Flat recv(DType::f32, count);
    const std::array<Transfer, 1> flats = {{{send.view(), recv.view()}}};
    double squares = 0;
    world().reduce_scatter(flats, {.sum_of_squares = {&squares, 1}}, "big").wait();
    std::vector<test::Flat> all;
    for (int r = 0; r < size; ++r)
      all.push_back(test::filled(DType::bf16, count * size, static_cast<std::uint64_t>(r + 1)));
    bool same = true;
    for (std::int64_t i = 0; i < count; ++i)
      same = same && recv.get(i) == test::sum_at(all, world().rank() * count + i);
    CHECK(same);
    const test::Flat gathered(DType::f32, count * size, *memory);
    const std::array<Transfer, 1> back = {{{recv.view(), gathered.view()}}};
    world().all_gather(back, "big").wait();
    same = true;
    for (std::int64_t i = 0; i < count * size; ++i)
      same = same && gathered.get(i) == test::sum_at(all, i);
    CHECK(same);
  }
}

TEST_CASE("mpi: window memory is given back and used again") {
  const auto fill_and_free = [] {
    const Buffer a(world().window(), 1 << 20, Category::gradient);
    const Buffer b(world().window(), 3 << 20, Category::parameter);
    CHECK(reinterpret_cast<std::uintptr_t>(a.data()) % kAlignment == 0);
    CHECK((b.data() >= a.data() + a.bytes() || a.data() >= b.data() + b.bytes()));
    return a.data();
  };
  const std::byte* first = fill_and_free();
  const std::byte* again = fill_and_free();
  if (&world().window() != &host_memory()) CHECK(first == again);  // else malloc may do as it likes
  world().barrier();
}

}  // namespace ashlar
