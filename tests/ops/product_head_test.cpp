// The fused language-model head against the textbook formula in double.
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <map>
#include <memory>

#include "ashlar/autodiff.hpp"
#include "ashlar/buffer.hpp"
#include "ashlar/error.hpp"
#include "ashlar/ops.hpp"
#include "graph/evaluate.hpp"
#include "ops/harness.hpp"
#include "ops/product/linear_cross_entropy.hpp"
#include "ops/product/machine.hpp"
#include "runtime/thread_pool.hpp"

namespace ashlar::test {
namespace {

using Values = std::span<const Value>;

/// Puts a pattern behind everything that it serves and looks at it in the end.
class GuardResource final : public MemoryResource {
 public:
  bool intact = true;

 private:
  static constexpr std::int64_t kGuard = 128;
  void* do_allocate(std::int64_t bytes, Category category, StreamRef stream) override {
    auto* data = static_cast<std::byte*>(host_memory().allocate(bytes + kGuard, category, stream));
    std::memset(data + bytes, 0x5a, kGuard);
    return data;
  }
  void do_deallocate(void* pointer, std::int64_t bytes, Category category,
                     StreamRef stream) noexcept override {
    const auto* data = static_cast<const std::byte*>(pointer);
    for (std::int64_t i = 0; i < kGuard; ++i) intact = intact && data[bytes + i] == std::byte{0x5a};
    host_memory().deallocate(pointer, bytes + kGuard, category, stream);
  }
};

struct Problem {
  std::int64_t rows, channels, vocabulary;
  DType dtype = DType::f32;
  DType dweight = DType::f32;
  double scale = 1;  // of x
  std::int32_t ignore_every = 0;
  int threads = 1;
  bool fused = true;
};

struct Answer {
  double loss = 0;
  Doubles dx, dweight;
  std::vector<std::byte> bytes;
};

Doubles inputs_of(const Problem& p, std::int64_t count, double scale, std::uint64_t seed) {
  Doubles values = random_values(count, -scale, scale, seed);
  for (double& v : values) v = rounded(v, p.dtype);
  return values;
}
Doubles x_of(const Problem& p) { return inputs_of(p, p.rows * p.channels, p.scale, 1); }
Doubles weight_of(const Problem& p) { return inputs_of(p, p.vocabulary * p.channels, 1, 2); }
std::vector<std::int32_t> targets_of(const Problem& p) {
  std::vector<std::int32_t> targets;
  for (std::int64_t i = 0; i < p.rows; ++i) {
    const bool ignored = p.ignore_every > 0 && i % p.ignore_every == 0;
    targets.push_back(ignored ? -1 : static_cast<std::int32_t>(i * 7919 % p.vocabulary));
  }
  return targets;
}

constexpr double kDloss = 0.75;

Answer textbook(const Problem& p) {
  const Doubles x = x_of(p), w = weight_of(p);
  const auto targets = targets_of(p);
  const auto c = static_cast<std::size_t>(p.channels), v = static_cast<std::size_t>(p.vocabulary);
  Answer answer{.dx = Doubles(x.size(), 0), .dweight = Doubles(w.size(), 0), .bytes = {}};
  double counted = 0;
  for (const auto t : targets) counted += t >= 0 ? 1 : 0;
  for (std::size_t i = 0; i < targets.size(); ++i) {
    if (targets[i] < 0) continue;
    const auto target = static_cast<std::size_t>(targets[i]);
    Doubles logits(v, 0);
    for (std::size_t j = 0; j < v; ++j)
      for (std::size_t l = 0; l < c; ++l) logits[j] += x[i * c + l] * w[j * c + l];
    const double most = *std::max_element(logits.begin(), logits.end());
    double sum = 0;
    for (const double l : logits) sum += std::exp(l - most);
    answer.loss += (std::log(sum) + most - logits[target]) / counted;
    for (std::size_t j = 0; j < v; ++j) {
      const double g =
          kDloss / counted * (std::exp(logits[j] - most) / sum - (j == target ? 1 : 0));
      for (std::size_t l = 0; l < c; ++l) {
        answer.dx[i * c + l] += g * w[j * c + l];
        answer.dweight[j * c + l] += g * x[i * c + l];
      }
    }
  }
  return answer;
}

Buffer stored(const Doubles& values, DType dtype) {
  Buffer buffer(host_memory(), static_cast<std::int64_t>(values.size()) * size_of(dtype),
                Category::input);
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (dtype == DType::f64) reinterpret_cast<double*>(buffer.data())[i] = values[i];
    if (dtype == DType::f32)
      reinterpret_cast<float*>(buffer.data())[i] = static_cast<float>(values[i]);
    if (dtype == DType::bf16)
      reinterpret_cast<bf16*>(buffer.data())[i] = bf16(static_cast<float>(values[i]));
  }
  return buffer;
}

Doubles numbers(const TensorView& view) {
  Doubles values;
  for (std::int64_t i = 0; i < view.elements(); ++i) {
    if (view.dtype == DType::f64) values.push_back(view.as<double>()[i]);
    if (view.dtype == DType::f32) values.push_back(view.as<float>()[i]);
    if (view.dtype == DType::bf16) values.push_back(view.as<bf16>()[i]);
  }
  return values;
}

int count_nodes(const Graph& graph, std::string_view prefix) {
  int count = 0;
  for (const Node& node : graph.nodes) count += node.op->name.starts_with(prefix) ? 1 : 0;
  return count;
}

Answer compute(const Problem& p) {
  Tracer tracer;
  const DType loss_dtype = p.dtype == DType::f64 ? DType::f64 : DType::f32;
  const Value x = tracer.input("x", p.dtype, {p.rows, p.channels});
  const Value w = tracer.input("w", p.dtype, {p.vocabulary, p.channels});
  const Value targets = tracer.input("targets", DType::i32, {p.rows});
  const Value loss = linear_cross_entropy(x, w, targets);
  const Value dloss = scale(constant(tracer, kDloss / 2, loss_dtype, {}), 2);
  const std::array outputs = {loss}, cotangents = {dloss};
  const std::array wrt = {x, w};
  const std::array dtypes = {p.dtype, p.dweight};
  const auto gradients = vjp(tracer, outputs, cotangents, wrt, dtypes);
  tracer.output("loss", loss);
  tracer.output("dx", gradients[0]);
  tracer.output("dweight", gradients[1]);
  Graph graph = tracer.graph();
  CHECK(count_nodes(graph, "linear_cross_entropy") == 2);
  if (p.fused) {
    graph = fuse_cross_entropy(std::move(graph));
    CHECK(count_nodes(graph, "linear_cross_entropy") == 1);
  }
  const Buffer x_memory = stored(x_of(p), p.dtype), w_memory = stored(weight_of(p), p.dtype);
  auto target_values = targets_of(p);
  const std::map<std::string, TensorView> inputs = {
      {"x", x_memory.view(p.dtype, x.shape())},
      {"w", w_memory.view(p.dtype, w.shape())},
      {"targets", TensorView(target_values.data(), DType::i32, {p.rows})}};
  ThreadPool pool(p.threads);
  RunContext context;
  context.pool = &pool;
  GuardResource memory;
  Answer answer;
  {
    const Tensors results = evaluate(graph, inputs, context, memory, host_backend(p.threads));
    answer.loss = numbers(results.at("loss").second)[0];
    answer.dx = numbers(results.at("dx").second);
    answer.dweight = numbers(results.at("dweight").second);
    for (const char* name : {"loss", "dx", "dweight"}) {
      const TensorView& view = results.at(name).second;
      answer.bytes.insert(answer.bytes.end(), view.data, view.data + view.bytes());
    }
  }
  CHECK(memory.intact);
  return answer;
}

/// Every element within `tolerance` of the largest magnitude.
void compare(const Doubles& got, const Doubles& expected, double tolerance, const char* what) {
  REQUIRE(got.size() == expected.size());
  double worst = 0, most = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    const double error = std::abs(got[i] - expected[i]);
    if (!(error <= worst)) worst = error;
  }
  for (const double e : expected) most = std::max(most, std::abs(e));
  INFO(what, ": worst ", worst, " largest ", most);
  CHECK(worst <= tolerance * most);
}

void check_problem(const Problem& p) {
  CAPTURE(p.rows);
  CAPTURE(p.vocabulary);
  CAPTURE(name_of(p.dtype));
  CAPTURE(name_of(p.dweight));
  CAPTURE(p.threads);
  const Answer expected = textbook(p), got = compute(p);
  const bool half = p.dtype == DType::bf16;
  const double sums = p.dtype == DType::f64 ? 1e-12 : 4e-6;
  CHECK(std::abs(got.loss - expected.loss) <= sums * std::max(1.0, std::abs(expected.loss)));
  // bf16: the gradient of the logits and the result are rounded once each.
  compare(got.dx, expected.dx, half ? 1.0 / 64 : 8 * sums, "dx");
  compare(got.dweight, expected.dweight, half ? 1.0 / 64 : 8 * sums, "dweight");
}

TEST_CASE("linear_cross_entropy: the textbook formula at the edges of chunks and blocks") {
  for (const std::int64_t rows : {1, 255, 256, 257, 1500}) {
    check_problem({rows, 24, 97, DType::f64, DType::f64});
    check_problem({rows, 24, 97, DType::f32, DType::f32});
    check_problem({rows, 24, 97, DType::bf16, DType::bf16});
    check_problem({rows, 24, 97, DType::bf16, DType::f32});
  }
  check_problem({1100, 33, 1031, DType::f32, DType::f32, 1, 5, 3});
  check_problem({1100, 33, 1031, DType::bf16, DType::bf16, 1, 5, 3});
  check_problem({2, 3, 1});
}

TEST_CASE("linear_cross_entropy: huge logits neither overflow nor vanish") {
  for (const DType dtype : {DType::f32, DType::bf16, DType::f64}) {
    Problem p{40, 16, 300, dtype, dtype == DType::bf16 ? DType::f32 : dtype, 1e4};
    const Answer expected = textbook(p), got = compute(p);
    CHECK(std::isfinite(got.loss));
    CHECK(got.loss == doctest::Approx(expected.loss).epsilon(1e-4));
    compare(got.dx, expected.dx, 0.05, "dx");
  }
}

TEST_CASE("linear_cross_entropy: ignored targets do not count") {
  for (const DType dtype : {DType::f32, DType::bf16})
    check_problem({300, 12, 50, dtype, DType::f32, 1, 3});
  const Answer nothing = compute({20, 4, 9, DType::f32, DType::f32, 1, 1});
  CHECK(nothing.loss == 0);
  for (const double g : nothing.dx) CHECK(g == 0);
  for (const double g : nothing.dweight) CHECK(g == 0);
  const Answer empty = compute({0, 4, 9});
  CHECK(empty.loss == 0);
  for (const double g : empty.dweight) CHECK(g == 0);
}

TEST_CASE("linear_cross_entropy: one fused node and the pair give the same bits") {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    Problem p{700, 40, 211, dtype, DType::f32, 1, 4};
    const auto fused = compute(p).bytes;
    CHECK(compute(p).bytes == fused);
    p.fused = false;
    CHECK(compute(p).bytes == fused);
  }
}

TEST_CASE("linear_cross_entropy: finite differences") {
  const auto build = [](Tracer&, Values x) {
    return std::vector{linear_cross_entropy(x[0], x[1], x[2])};
  };
  check({.name = "linear_cross_entropy",
         .inputs = {{.shape = {2, 3, 4}},
                    {.shape = {7, 4}, .gradient = DType::f32},
                    {.shape = {2, 3}, .low = -1, .high = 7, .integer = true}},
         .build = build,
         .bf16_tolerance = 8,
         .same_bits_over_threads = false});
}

TEST_CASE("linear_cross_entropy: a cotangent that needs the loss keeps two nodes") {
  Tracer tracer;
  const Value x = tracer.input("x", DType::f32, {5, 3}), w = tracer.input("w", DType::f32, {7, 3});
  const Value loss = linear_cross_entropy(x, w, tracer.input("t", DType::i32, {5}));
  const std::array outputs = {loss}, cotangents = {scale(loss, 2)}, wrt = {x};
  tracer.output("dx", vjp(tracer, outputs, cotangents, wrt)[0]);
  CHECK(count_nodes(fuse_cross_entropy(tracer.graph()), "linear_cross_entropy") == 2);
}

TEST_CASE("linear_cross_entropy: a target outside of the vocabulary is named") {
  Tracer tracer;
  const Value x = tracer.input("x", DType::f32, {2, 3}), w = tracer.input("w", DType::f32, {4, 3});
  tracer.output("loss", linear_cross_entropy(x, w, tracer.input("t", DType::i32, {2})));
  std::vector<float> zeros(12, 0.0F);
  std::vector<std::int32_t> targets = {1, 4};
  const std::map<std::string, TensorView> inputs = {
      {"x", TensorView(zeros.data(), DType::f32, {2, 3})},
      {"w", TensorView(zeros.data(), DType::f32, {4, 3})},
      {"t", TensorView(targets.data(), DType::i32, {2})}};
  CHECK_THROWS_WITH_AS(evaluate(tracer.graph(), inputs, {}),
                       doctest::Contains("target 4 at position 1"), InvalidArgument);
}

}  // namespace
}  // namespace ashlar::test
