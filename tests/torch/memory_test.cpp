// libtorch's tensors in a cache of Ashlar.
#include <torch/torch.h>

#include "ashlar/interop/torch_memory.hpp"

#undef CHECK  // glog's, which libtorch includes
#include <doctest/doctest.h>

TEST_CASE("torch: tensors lie in the cache, which keeps their memory for the next") {
  const ashlar::CachingResource& cache = ashlar::torch::cache_cpu_memory();
  CHECK(&ashlar::torch::cache_cpu_memory() == &cache);
  const std::int64_t before = cache.statistics().live_bytes;
  const auto bytes = [&] { return cache.statistics().live_bytes - before; };
  const auto step = [&] {
    const auto weight = torch::ones({256, 1024}, torch::requires_grad());
    CHECK(bytes() >= 4 * 256 * 1024);
    torch::matmul(weight, torch::ones({1024, 64})).sum().backward();
    CHECK(weight.grad().eq(64).all().item<bool>());
    CHECK(bytes() >= 2 * 4 * 256 * 1024);
  };
  step();
  CHECK(bytes() == 0);
  const std::int64_t calls = cache.statistics().source_calls;
  step();
  CHECK(cache.statistics().source_calls == calls);
}

TEST_CASE("torch: memory from the cache grows, shrinks, and may be empty or raw") {
  ashlar::torch::cache_cpu_memory();
  auto tensor = torch::empty({0});
  tensor.resize_({1000}).fill_(2);
  tensor.resize_({2000});
  CHECK(tensor.slice(0, 0, 1000).eq(2).all().item<bool>());
  c10::Allocator* const allocator = c10::GetCPUAllocator();
  void* const raw = allocator->raw_allocate(100);
  CHECK(reinterpret_cast<std::uintptr_t>(raw) % 64 == 0);
  allocator->raw_deallocate(raw);
  allocator->raw_deallocate(nullptr);
}
