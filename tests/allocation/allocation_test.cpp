// The second step allocates nothing on compute threads: malloc and mmap are counted.
#include <doctest/doctest.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdlib>

#include "ashlar/communicator.hpp"
#include "ashlar/nn/gpt.hpp"
#include "ashlar/train_step.hpp"

extern "C" {
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void* __libc_memalign(std::size_t, std::size_t);
}

namespace {
thread_local bool counting = false;
/// OpenBLAS maps a buffer when more threads than before multiply at the same instant.
bool count_maps = true;
thread_local std::int64_t count = 0, bytes = 0;
/// oneDNN keeps books of a few hundred bytes for each product that it runs (bf16).
thread_local std::size_t ignored_below = 0;

void note(std::size_t size) {
  if (!counting || size < ignored_below) return;
  ++count;
  bytes += static_cast<std::int64_t>(size);
}
}  // namespace

extern "C" {
void* malloc(std::size_t size) {
  note(size);
  return __libc_malloc(size);
}
void* calloc(std::size_t n, std::size_t size) {
  note(n * size);
  return __libc_calloc(n, size);
}
void* realloc(void* old, std::size_t size) {
  note(size);
  return __libc_realloc(old, size);
}
void* aligned_alloc(std::size_t alignment, std::size_t size) {
  note(size);
  return __libc_memalign(alignment, size);
}
int posix_memalign(void** result, std::size_t alignment, std::size_t size) {
  note(size);
  *result = __libc_memalign(alignment, size);
  return *result == nullptr ? 12 : 0;
}
void* mmap(void* address, std::size_t size, int protection, int flags, int file, off_t offset) {
  if (count_maps) note(size);
  return reinterpret_cast<void*>(syscall(SYS_mmap, address, size, protection, flags, file, offset));
}
}

namespace ashlar {
namespace {

void check(int ranks, int stage, DType dtype, std::int64_t micro_batches) {
  count_maps = ranks == 1;
  launch_threads(ranks, [&](Communicator& world) {
    const GptConfig model = gpt_config("tiny");
    TrainConfig config;
    config.zero.stage = stage;
    config.precision = {dtype, dtype};
    config.micro_batches = micro_batches;
    config.clip = 1;
    config.samples = 2;
    const GptTrace how{2, 64, dtype, 0.1, {}};
    TrainStep train(
        world, [&](Tracer& t) { return gpt_loss(t, model, how); }, config);
    const Loader load = [](std::int64_t, const Batch& batch) {
      std::int32_t token = 0;
      for (const char* name : {"tokens", "targets"}) {
        for (std::int32_t& value : batch.at(name).span<std::int32_t>()) value = token++ % 256;
      }
    };
    for (int step = 0; step < 4; ++step) {
      count = bytes = 0;
      ignored_below = dtype == DType::bf16 ? 4096 : 0;
      counting = step > 0;
      train.step(load);
      counting = false;
      CAPTURE(ranks);
      CAPTURE(stage);
      CAPTURE(step);
      CAPTURE(name_of(dtype));
      CAPTURE(bytes);
      CHECK(count == 0);
    }
  });
}

}  // namespace

TEST_CASE("allocation: the second step allocates nothing on compute threads") {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    check(1, 3, dtype, 1);
    check(2, 3, dtype, 1);
    check(3, 1, dtype, 2);
  }
}

}  // namespace ashlar
