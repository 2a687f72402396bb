// Every backend of the product against the exact sum in double, on random shapes.
#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <thread>
#include <vector>

#include "ashlar/error.hpp"
#include "ops/product/gemm.hpp"
#include "ops/product/machine.hpp"
#include "runtime/thread_pool.hpp"

namespace {

using namespace ashlar;

constexpr std::int64_t kGuard = 256;  // bytes behind every buffer that nobody may touch

/// Memory that begins `offset` bytes behind a multiple of 64 and ends with a pattern.
class Guarded {
 public:
  Guarded(std::int64_t bytes, std::int64_t offset) : bytes_(bytes) {
    storage_.resize(static_cast<std::size_t>(bytes + offset + 64 + kGuard));
    const auto address = reinterpret_cast<std::uintptr_t>(storage_.data());
    data_ = storage_.data() + (64 - address % 64) % 64 + offset;
    std::memset(data_, 0xff, static_cast<std::size_t>(bytes));
    std::memset(data_ + bytes, 0x5a, kGuard);
  }
  std::byte* data() const { return data_; }
  std::int64_t bytes() const { return bytes_; }
  bool intact() const {
    for (std::int64_t i = 0; i < kGuard; ++i)
      if (data_[bytes_ + i] != std::byte{0x5a}) return false;
    return true;
  }

 private:
  std::vector<std::byte> storage_;
  std::byte* data_ = nullptr;
  std::int64_t bytes_;
};

void write(std::byte* data, DType dtype, std::int64_t i, double value) {
  if (dtype == DType::f64) reinterpret_cast<double*>(data)[i] = value;
  if (dtype == DType::f32) reinterpret_cast<float*>(data)[i] = static_cast<float>(value);
  if (dtype == DType::bf16) reinterpret_cast<bf16*>(data)[i] = bf16(static_cast<float>(value));
}
double read(const std::byte* data, DType dtype, std::int64_t i) {
  if (dtype == DType::f64) return reinterpret_cast<const double*>(data)[i];
  if (dtype == DType::f32) return double{reinterpret_cast<const float*>(data)[i]};
  return static_cast<double>(float{reinterpret_cast<const bf16*>(data)[i]});
}

void fill(const Guarded& memory, DType dtype, std::mt19937_64& random) {
  std::uniform_real_distribution<double> uniform(-1, 1);
  for (std::int64_t i = 0; i < memory.bytes() / size_of(dtype); ++i)
    write(memory.data(), dtype, i, uniform(random));
}

struct Operands {
  Gemm gemm;
  Guarded a, b, bias, before;

  Operands(const Gemm& given, std::int64_t offset, std::uint64_t seed)
      : gemm(with_leading_dimensions(given)),
        a((gemm.transpose_a ? gemm.k : gemm.m) * gemm.lda * size_of(gemm.dtype), offset),
        b((gemm.transpose_b ? gemm.n : gemm.k) * gemm.ldb * size_of(gemm.dtype), offset),
        bias(gemm.n * size_of(gemm.dtype), offset),
        before(gemm.m * gemm.ldc * size_of(gemm.result), 0) {
    std::mt19937_64 random(seed);
    fill(a, gemm.dtype, random);
    fill(b, gemm.dtype, random);
    fill(bias, gemm.dtype, random);
    fill(before, gemm.result, random);
  }
};

std::vector<std::byte> multiply(const Operands& in, const GemmRule& rule, int threads,
                                std::int64_t offset) {
  const GemmPlan plan(in.gemm, rule, threads);
  const Guarded c(in.before.bytes(), offset);
  const Guarded workspace(plan.workspace_bytes(), offset);
  std::memcpy(c.data(), in.before.data(), static_cast<std::size_t>(c.bytes()));
  ThreadPool pool(threads);
  RunContext context;
  context.pool = &pool;
  plan.run(context, in.a.data(), in.b.data(), in.gemm.bias ? in.bias.data() : nullptr, c.data(),
           workspace.data());
  CHECK(c.intact());
  CHECK(workspace.intact());
  return {c.data(), c.data() + c.bytes()};
}

/// Half a unit of the result's rounding, and k roundings of the running sum, worst case.
void compare(const Operands& in, const std::vector<std::byte>& c) {
  CHECK(c.size() == static_cast<std::size_t>(in.before.bytes()));
  const Gemm& g = in.gemm;
  const double sum_epsilon = g.dtype == DType::f64 ? std::numeric_limits<double>::epsilon()
                                                   : std::numeric_limits<float>::epsilon();
  const double result_epsilon = g.result == DType::bf16 ? 1.0 / 256 : sum_epsilon;
  for (std::int64_t i = 0; i < g.m; ++i) {
    for (std::int64_t j = 0; j < g.ldc; ++j) {
      const double got = read(c.data(), g.result, i * g.ldc + j);
      const double old = read(in.before.data(), g.result, i * g.ldc + j);
      if (j >= g.n) {
        if (got != old) FAIL("the gap behind row ", i, " was written");
        continue;
      }
      double sum = g.accumulate ? old : g.bias ? read(in.bias.data(), g.dtype, j) : 0;
      double magnitude = std::abs(sum);
      for (std::int64_t l = 0; l < g.k; ++l) {
        const double x = read(in.a.data(), g.dtype, g.transpose_a ? l * g.lda + i : i * g.lda + l);
        const double y = read(in.b.data(), g.dtype, g.transpose_b ? j * g.ldb + l : l * g.ldb + j);
        sum += x * y;
        magnitude += std::abs(x * y);
      }
      const double bound =
          static_cast<double>(g.k + 2) * sum_epsilon * magnitude + result_epsilon * std::abs(sum);
      if (!(std::abs(got - sum) <= bound))
        FAIL("row ", i, " column ", j, ": ", got, " instead of ", sum, " +- ", bound);
    }
  }
}

struct Type {
  DType dtype, result;
  GemmRule rule;
};

const std::vector<Type> kTypes = {
    {DType::f64, DType::f64, {GemmBackend::openblas, false}},
    {DType::f32, DType::f32, {GemmBackend::openblas, false}},
    {DType::f32, DType::f32, {GemmBackend::onednn, false}},
    {DType::f32, DType::f32, {GemmBackend::onednn, true}},
    {DType::bf16, DType::bf16, {GemmBackend::onednn, false}},
    {DType::bf16, DType::bf16, {GemmBackend::onednn, true}},
    {DType::bf16, DType::f32, {GemmBackend::onednn, false}},
    {DType::bf16, DType::f32, {GemmBackend::onednn, true}},
    {DType::bf16, DType::bf16, {GemmBackend::panels, false}},
    {DType::bf16, DType::f32, {GemmBackend::panels, false}},
};

std::int64_t pick(std::mt19937_64& random, std::initializer_list<std::int64_t> values) {
  return values.begin()[random() % values.size()];
}

Gemm random_gemm(std::mt19937_64& random, const Type& type) {
  Gemm gemm{.m = pick(random, {0, 1, 2, 3, 7, 17, 31, 64, 131, 300}),
            .n = pick(random, {0, 1, 2, 5, 13, 16, 48, 97, 256, 531}),
            .k = pick(random, {0, 1, 2, 3, 11, 29, 32, 64, 127, 530}),
            .transpose_a = random() % 2 == 0,
            .transpose_b = random() % 2 == 0,
            .dtype = type.dtype,
            .result = type.result};
  const auto extra = random() % 3;
  gemm.accumulate = extra == 1 && type.result != DType::bf16;
  gemm.bias = extra == 2;
  if (random() % 2 == 0) {
    gemm = with_leading_dimensions(gemm);
    gemm.lda += pick(random, {0, 1, 32});
    gemm.ldb += pick(random, {0, 3, 32});
    gemm.ldc += pick(random, {0, 5, 16});
  }
  return gemm;
}

TEST_CASE("product: every backend is within the rounding of its sums") {
  std::mt19937_64 random(7);
  for (const Type& type : kTypes) {
    for (int trial = 0; trial < 60; ++trial) {
      const Gemm gemm = random_gemm(random, type);
      CAPTURE(static_cast<int>(type.rule.backend));
      CAPTURE(type.rule.pack_b);
      CAPTURE(name_of(type.dtype));
      CAPTURE(name_of(type.result));
      CAPTURE(gemm.m);
      CAPTURE(gemm.n);
      CAPTURE(gemm.k);
      CAPTURE(gemm.transpose_a);
      CAPTURE(gemm.transpose_b);
      CAPTURE(gemm.accumulate);
      CAPTURE(gemm.bias);
      const Operands in(gemm, 0, random());
      const int threads = static_cast<int>(1 + random() % 3);
      const auto c = multiply(in, type.rule, threads, 0);
      compare(in, c);
    }
  }
}

TEST_CASE("product: bits depend neither on where operands lie nor on what ran before") {
  std::mt19937_64 random(11);
  for (const Type& type : kTypes) {
    for (int trial = 0; trial < 15; ++trial) {
      const Gemm gemm = random_gemm(random, type);
      const std::uint64_t seed = random();
      const int threads = static_cast<int>(1 + random() % 2);
      const Operands here(gemm, 0, seed), there(gemm, 64, seed), odd(gemm, 8, seed);
      const auto first = multiply(here, type.rule, threads, 0);
      CHECK(first == multiply(here, type.rule, threads, 0));
      CHECK(first == multiply(there, type.rule, threads, 64));
      CHECK(first == multiply(odd, type.rule, threads, 8));
    }
  }
}

TEST_CASE("product: ranks as threads share a plan and compute at the same time") {
  for (const Type& type : kTypes) {
    const Gemm gemm{.m = 150,
                    .n = 90,
                    .k = 70,
                    .transpose_b = true,
                    .dtype = type.dtype,
                    .result = type.result};
    const Operands in(gemm, 0, 5);
    const auto expected = multiply(in, type.rule, 1, 0);
    const GemmPlan plan(gemm, type.rule, 1);
    std::atomic<int> ready = 0, wrong = 0;
    std::vector<std::thread> ranks;
    for (int rank = 0; rank < 4; ++rank) {
      ranks.emplace_back([&] {
        const Guarded workspace(plan.workspace_bytes(), 0);
        std::vector<std::byte> result(expected.size());
        for (++ready; ready < 4;) std::this_thread::yield();
        for (int run = 0; run < 200; ++run) {
          std::fill(result.begin(), result.end(), std::byte{0xff});
          plan.run({}, in.a.data(), in.b.data(), nullptr, result.data(), workspace.data());
          if (result != expected) ++wrong;
        }
      });
    }
    for (std::thread& rank : ranks) rank.join();
    CHECK(wrong == 0);
  }
}

TEST_CASE("product: the table has an entry for every type and machine, and it works") {
  for (const char* cpu : {"zen5", "zen4", "sapphire_rapids", "avx512", "avx2", "x86_64", ""}) {
    for (const DType dtype : {DType::f32, DType::bf16, DType::f64}) {
      for (const std::int64_t m : {4, 8192}) {
        const Gemm gemm{.m = m, .n = 256, .k = 8, .dtype = dtype, .result = dtype};
        const Operands in(gemm, 0, 3);
        compare(in, multiply(in, gemm_rule(gemm, cpu), 1, 0));
      }
    }
  }
  CHECK(gemm_rule({.dtype = DType::bf16}, "").backend ==
        gemm_rule({.dtype = DType::bf16}, cpu_name()).backend);
}

TEST_CASE("product: types without a product are refused") {
  const Backend backend = host_backend(1);
  CHECK_THROWS_AS(
      GemmPlan({.m = 1, .n = 1, .k = 1, .dtype = DType::i32, .result = DType::i32}, backend),
      InvalidArgument);
  CHECK_THROWS_AS(
      GemmPlan({.m = 1, .n = 1, .k = 1, .dtype = DType::f32, .result = DType::bf16}, backend),
      InvalidArgument);
  CHECK_THROWS_AS(
      GemmPlan(
          {.m = 1, .n = 1, .k = 1, .dtype = DType::bf16, .result = DType::bf16, .accumulate = true},
          backend),
      InvalidArgument);
}

}  // namespace
