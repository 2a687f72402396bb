// Pullbacks at run time: when buffers die, what a second call does, what is left after a throw.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "ashlar/error.hpp"
#include "ashlar/memory_resource.hpp"
#include "ashlar/ops.hpp"
#include "autodiff/support.hpp"

namespace ashlar::test {
namespace {

using Tensors = std::vector<Tensor>;
static_assert(std::is_invocable_v<Pullback<once>, Tensors>);
static_assert(!std::is_invocable_v<Pullback<once>&, Tensors>);
static_assert(!std::is_invocable_v<const Pullback<once>&, Tensors>);
static_assert(!std::is_copy_constructible_v<Pullback<once>>);
static_assert(std::is_invocable_v<const Pullback<repeatable>&, Tensors>);

constexpr std::int64_t kRows = 64, kChannels = 32;
const std::vector<Array> kInputs = {random_array({kRows, kChannels}, 1),
                                    random_array({kChannels, kChannels}, 2)};

/// Tanh layers on tied weights. The second output is a residual of backward.
std::vector<Value> layers(Values x) {
  Value h = x[0], second;
  for (int i = 0; i < 6; ++i) {
    h = tanh(linear(h, x[1], {}));
    if (i == 3) second = h;
  }
  return {sum(multiply(h, h)), second};
}

Tensors tensors(const std::vector<Array>& arrays) {
  Tensors result;
  for (const Array& array : arrays) result.push_back(to_tensor(array));
  return result;
}

Tensors cotangents(unsigned seed = 3) {
  return tensors({scalar(1.25), random_array({kRows, kChannels}, seed)});
}

std::vector<Doubles> numbers(const Tensors& tensors) {
  std::vector<Doubles> result;
  for (const Tensor& tensor : tensors) result.push_back(to_doubles(tensor));
  return result;
}

std::int64_t total(const PerCategory<std::int64_t>& bytes) {
  std::int64_t sum = 0;
  for (const std::int64_t b : bytes) sum += b;
  return sum;
}

/// Notes the live bytes at each allocation.
class Recorder final : public MemoryResource {
 public:
  std::int64_t live = 0;
  std::vector<std::int64_t> at_allocation;

 private:
  void* do_allocate(std::int64_t bytes, Category category, StreamRef stream) override {
    live += bytes;
    at_allocation.push_back(live);
    return host_memory().allocate(bytes, category, stream);
  }
  void do_deallocate(void* pointer, std::int64_t bytes, Category category,
                     StreamRef stream) noexcept override {
    live -= bytes;
    host_memory().deallocate(pointer, bytes, category, stream);
  }
};

/// Fails at one allocation, counted from the last reset.
class Failing final : public MemoryResource {
 public:
  explicit Failing(MemoryResource& upstream) : upstream_(upstream) {}
  void fail_at(int n) {
    at_ = n;
    count_ = 0;
  }

 private:
  void* do_allocate(std::int64_t bytes, Category category, StreamRef stream) override {
    if (count_++ == at_) throw OutOfMemory("refused");
    return upstream_.allocate(bytes, category, stream);
  }
  void do_deallocate(void* pointer, std::int64_t bytes, Category category,
                     StreamRef stream) noexcept override {
    upstream_.deallocate(pointer, bytes, category, stream);
  }
  MemoryResource& upstream_;
  int at_ = -1;
  int count_ = 0;
};

const ForwardBackward& program() {
  static const ForwardBackward program(layers, types_of(kInputs));
  return program;
}

}  // namespace

TEST_CASE("pullback: gradients are those of the graph, run in one go") {
  std::vector<Array> all = kInputs;
  all.push_back(scalar(1.25));
  all.push_back(random_array({kRows, kChannels}, 3));
  const auto expected = run(
      [](Values x) {
        const Linearized backward = vjp(layers, x.first(2));
        std::vector<Value> results = backward.outputs;
        for (const Value& g : backward.linear(x.subspan(2))) results.push_back(g);
        return results;
      },
      all);
  auto [outputs, pullback] = program().run(tensors(kInputs));
  const auto gradients = numbers(std::move(pullback)(cotangents()));
  CHECK(to_doubles(outputs[0]) == expected[0]);
  CHECK(to_doubles(outputs[1]) == expected[1]);
  CHECK(gradients[0] == expected[2]);
  CHECK(gradients[1] == expected[3]);
}

TEST_CASE("pullback: what lives through the pause is what saved_residuals says, to the byte") {
  StatisticsAdaptor memory(host_memory());
  {
    auto [outputs, pullback] = program().run(tensors(kInputs), {.memory = &memory});
    outputs.clear();
    std::int64_t kept = 0;
    for (const Residual& r : program().residuals())
      kept += r.input == InputKind::none ? r.bytes : 0;
    CHECK(kept == 6 * kRows * kChannels * 8);
    CHECK(total(memory.live()) == kept);
  }
  CHECK(total(memory.live()) == 0);
}

TEST_CASE("pullback: once gives each buffer back at its last use, repeatable in the end") {
  constexpr std::int64_t kBuffer = kRows * kChannels * 8;
  Recorder consumed, kept;
  {
    auto [outputs, pullback] = program().run(tensors(kInputs), {.memory = &consumed});
    outputs.clear();
    consumed.at_allocation.clear();
    const Tensors gradients = std::move(pullback)(cotangents());
    CHECK(consumed.live == kBuffer + kChannels * kChannels * 8);  // the gradients alone
  }
  {
    auto [outputs, pullback] = program().run<repeatable>(tensors(kInputs), {.memory = &kept});
    outputs.clear();
    kept.at_allocation.clear();
    const std::int64_t before = kept.live;
    { const Tensors gradients = pullback(cotangents()); }
    CHECK(kept.live == before);
  }
  CHECK(consumed.live == 0);
  CHECK(kept.live == 0);
  // Both made the same allocations; what once had given back by then grows layer by layer.
  REQUIRE(consumed.at_allocation.size() == kept.at_allocation.size());
  std::vector<std::int64_t> returned;
  for (std::size_t i = 0; i < kept.at_allocation.size(); ++i) {
    const std::int64_t bytes = kept.at_allocation[i] - consumed.at_allocation[i];
    if (returned.empty() || bytes != returned.back()) returned.push_back(bytes);
  }
  CHECK(returned == std::vector<std::int64_t>{0, kBuffer, 2 * kBuffer, 3 * kBuffer, 4 * kBuffer,
                                              5 * kBuffer, 6 * kBuffer});
}

TEST_CASE("pullback: inputs, outputs and cotangents that were handed over die too") {
  StatisticsAdaptor memory(host_memory());
  const auto tensor = [&](const Array& array) { return to_tensor(array, DType::f64, memory); };
  Tensors inputs = {tensor(kInputs[0]), tensor(kInputs[1])};
  auto [outputs, pullback] = program().run(std::move(inputs), {.memory = &memory});
  const Doubles second = to_doubles(outputs[1]);
  Tensors given = {tensor(scalar(1)), tensor(random_array({kRows, kChannels}, 3))};
  const Tensors gradients = std::move(pullback)(std::move(given));
  CHECK(to_doubles(outputs[1]) == second);  // a residual, and still ours
  outputs.clear();
  CHECK(total(memory.live()) == (kRows * kChannels + kChannels * kChannels) * 8);
}

TEST_CASE("pullback: a second call says so") {
  auto [outputs, pullback] = program().run(tensors(kInputs));
  std::move(pullback)(cotangents());
  CHECK_THROWS_WITH_AS(std::move(pullback)(cotangents()), doctest::Contains("second time"),
                       InvalidArgument);
}

TEST_CASE("pullback: repeatable gives once's bits, call after call and batched") {
  std::vector<Tensors> batch;
  std::vector<std::vector<Doubles>> expected;
  for (unsigned seed = 10; seed < 14; ++seed) {
    auto [outputs, pullback] = program().run(tensors(kInputs));
    expected.push_back(numbers(std::move(pullback)(cotangents(seed))));
    batch.push_back(cotangents(seed));
  }
  const auto result = program().run<repeatable>(tensors(kInputs));
  for (const int round : {0, 1}) {
    for (std::size_t k = 0; k < batch.size(); ++k) {
      CAPTURE(round);
      CHECK(numbers(result.pullback(batch[k])) == expected[k]);
    }
  }
  const auto together = result.pullback.batched(batch);
  REQUIRE(together.size() == batch.size());
  for (std::size_t k = 0; k < batch.size(); ++k) CHECK(numbers(together[k]) == expected[k]);
  CHECK(result.pullback.batched({}).empty());
}

TEST_CASE("pullback: what depends on no cotangent runs once in a batch") {
  // attention's backward of backward is expanded: softmax of the scores is made again.
  const Function f = [](Values x) {
    return jvp([](Values v) { return std::vector{causal_attention(v[0], 1)}; }, x, x).tangents;
  };
  const std::vector<Array> inputs = {random_array({1, 4, 6}, 1)};
  const ForwardBackward attention(f, types_of(inputs));
  StatisticsAdaptor memory(host_memory());
  const auto result = attention.run<repeatable>(tensors(inputs), {.memory = &memory});
  const Tensors g = tensors({random_array({1, 4, 2}, 2)});
  const std::int64_t start = memory.allocations();
  const auto one = numbers(result.pullback(g));
  const std::int64_t alone = memory.allocations() - start;
  const auto four = result.pullback.batched({g, g, g, g});
  CHECK(memory.allocations() - start - alone < 4 * alone);
  for (const Tensors& gradients : four) CHECK(numbers(gradients) == one);
}

TEST_CASE("pullback: a throw in forward or backward leaks nothing, whichever allocation fails") {
  StatisticsAdaptor counted(host_memory());
  Failing memory(counted);
  const auto attempt = [&](int forward, int backward) {
    memory.fail_at(forward);
    auto [outputs, pullback] = program().run(tensors(kInputs), {.memory = &memory});
    memory.fail_at(backward);
    std::move(pullback)(cotangents());
  };
  int failures = 0;
  const auto fails = [&](int forward, int backward) {
    try {
      attempt(forward, backward);
      return false;
    } catch (const OutOfMemory&) {
      CHECK(total(counted.live()) == 0);
      ++failures;
      return true;
    }
  };
  for (int n = 0; fails(n, -1); ++n) {
  }
  const int of_forward = failures;
  CHECK(of_forward > 10);
  for (int n = 0; fails(-1, n); ++n) {
  }
  CHECK(failures - of_forward > 15);
  CHECK(total(counted.live()) == 0);
}

TEST_CASE("pullback: repeatable survives a failed call") {
  StatisticsAdaptor counted(host_memory());
  Failing memory(counted);
  const auto result = program().run<repeatable>(tensors(kInputs), {.memory = &memory});
  const std::int64_t kept = total(counted.live());
  const auto expected = numbers(result.pullback(cotangents()));
  for (const int n : {0, 3, 9}) {
    memory.fail_at(n);
    CHECK_THROWS_AS(result.pullback.batched({cotangents(), cotangents()}), OutOfMemory);
    CHECK(total(counted.live()) == kept);
  }
  memory.fail_at(-1);
  CHECK(numbers(result.pullback(cotangents())) == expected);
}

TEST_CASE("pullback: identity, views, zero cotangents, unused and integer inputs") {
  const Function f = [](Values x) {
    return std::vector{x[0], transpose(x[0], 0, 1), x[0], x[2], stop_gradient(x[0])};
  };
  const std::vector<TensorType> types = {
      {DType::f64, {2, 3}}, {DType::f64, {4}}, {DType::i32, {2}}};
  const ForwardBackward identity(f, types);
  const Array x = random_array({2, 3}, 1);
  Tensors inputs = {to_tensor(x), to_tensor(random_array({4}, 2)),
                    to_tensor({{2}, {7, 9}}, DType::i32)};
  const std::byte* memory = inputs[0].view.data;
  auto [outputs, pullback] = identity.run(std::move(inputs));
  CHECK(outputs[0].view.data == memory);
  CHECK(outputs[2].view.data == memory);
  CHECK(outputs[1].view.contiguous());
  CHECK(outputs[3].view.as<std::int32_t>()[1] == 9);
  const Array g = random_array({2, 3}, 3), h = random_array({3, 2}, 4);
  const Tensors gradients =
      std::move(pullback)({to_tensor(g), to_tensor(h), Tensor(), Tensor(), Tensor()});
  CHECK(to_doubles(outputs[0]) == x.numbers);
  Doubles expected;
  for (std::size_t i = 0; i < 2; ++i)
    for (std::size_t j = 0; j < 3; ++j)
      expected.push_back(g.numbers[i * 3 + j] + h.numbers[j * 2 + i]);
  CHECK(to_doubles(gradients[0]) == expected);
  CHECK(to_doubles(gradients[1]) == Doubles(4, 0.0));
  CHECK_FALSE(gradients[2]);

  const Function only = [](Values v) { return std::vector{v[0]}; };
  const ForwardBackward copy(only, std::vector<TensorType>{{DType::f64, {2, 3}}});
  auto same = copy.run({to_tensor(x)});
  const Tensor given = to_tensor(g);
  CHECK(std::move(same.pullback)({given})[0].view.data == given.view.data);
}

TEST_CASE("pullback: dropout's mask is the same in both halves") {
  const Function f = [](Values x) { return std::vector{dropout(x[0], 0.5)}; };
  const ForwardBackward drop(f, std::vector<TensorType>{{DType::f64, {4, 50}}});
  RunOptions options;
  options.context.seed = 99;
  options.context.step = 7;
  const Array ones{{4, 50}, Doubles(200, 1.0)};
  auto [outputs, pullback] = drop.run({to_tensor(ones)}, options);
  CHECK(to_doubles(std::move(pullback)({to_tensor(ones)})[0]) == to_doubles(outputs[0]));
}

TEST_CASE("pullback: what does not fit is refused") {
  CHECK_THROWS_WITH_AS(program().run(Tensors{}), doctest::Contains("0 inputs are given, 2 wanted"),
                       InvalidArgument);
  Tensors wrong = tensors(kInputs);
  wrong[1] = to_tensor(random_array({3}, 1));
  CHECK_THROWS_WITH_AS(program().run(std::move(wrong)),
                       doctest::Contains("input 1 is f64[3], not f64[32, 32]"), InvalidArgument);
  const auto result = program().run<repeatable>(tensors(kInputs));
  CHECK_THROWS_AS(result.pullback({}), InvalidArgument);
  CHECK_THROWS_AS(result.pullback({to_tensor(scalar(1)), to_tensor(scalar(1))}), InvalidArgument);
  const Function declares = [](Values x) {
    return std::vector{add(x[0], x[0].tracer().input("more", DType::f64, {}))};
  };
  CHECK_THROWS_WITH_AS(ForwardBackward(declares, std::vector<TensorType>{{DType::f64, {}}}),
                       doctest::Contains("as arguments only"), InvalidArgument);
}

TEST_CASE("residuals: bytes, and the line of model code that made them") {
  const std::uint_least32_t line = __LINE__ + 2;
  const Function f = [](Values x) {
    const Value h = linear(x[0], x[1], {});
    const Value y = transpose(tanh(h), 0, 1);
    return std::vector{sum(multiply(exp(y), y)), scale(h, 2)};
  };
  const auto residuals = saved_residuals(f, types_of(kInputs));
  std::vector<std::string> names;
  for (const Residual& r : residuals) names.push_back(r.name);
  CHECK(names == std::vector<std::string>{"input 0", "input 1", "tanh", "exp"});
  CHECK(residuals[0].input == InputKind::data);
  CHECK(residuals[2].input == InputKind::none);
  CHECK(residuals[2].bytes == kRows * kChannels * 8);
  CHECK(residuals[2].where.line() == line + 1);
  CHECK(residuals[3].where.line() == line + 2);
  CHECK(std::string_view(residuals[2].where.file_name()).ends_with("pullback_test.cpp"));
  const std::string text = to_string(residuals);
  CHECK(text.find("pullback_test.cpp:" + std::to_string(line + 1)) != std::string::npos);
  CHECK(text.find(format_bytes(2 * kRows * kChannels * 8) + "  made by forward") !=
        std::string::npos);
}

}  // namespace ashlar::test
