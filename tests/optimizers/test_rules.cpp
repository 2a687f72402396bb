// AdamW and SGD against textbook formulas in double, and the same bits wherever an element lies.
#include <doctest/doctest.h>
#include <hwy/highway.h>

#include <array>
#include <bit>
#include <cstring>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "ashlar/error.hpp"
#include "base/math/adamw.hpp"
#include "base/math/scalar_math.hpp"
#include "optimizers/support.hpp"

using namespace ashlar;
using testing::AdamWOracle;
using testing::SgdOracle;
using testing::Span;

namespace {

const std::vector<std::int64_t> kSizes{0, 1, 7, 15, 16, 17, 31, 33, 1000, 1009};
const std::vector<std::int64_t> kOffsets{0, 1, 3, 15};

/// Cuts [0, n) into segments that alternate between decay and none, with empty ones among them.
std::vector<Segment> alternating(std::int64_t n, std::mt19937& random) {
  std::vector<Segment> segments;
  std::int64_t begin = 0;
  while (begin < n) {
    const std::int64_t end = std::min<std::int64_t>(n, begin + random() % 90);
    segments.push_back({begin, end, segments.size() % 3 != 1});
    begin = end;
  }
  return segments;
}

bool decays(const std::vector<Segment>& segments, std::int64_t i) {
  for (const Segment& s : segments)
    if (s.begin <= i && i < s.end) return s.decay;
  return false;
}

std::vector<TensorView> views_of(std::vector<Span<float>>& spans) {
  std::vector<TensorView> views;
  for (Span<float>& span : spans) views.push_back(span.view());
  return views;
}

/// Five steps over a span beside the oracle. Parameter void: fp32 training.
template <typename Oracle, typename Config, typename Gradient, typename Parameter>
void check_against_oracle(const Config& config, std::int64_t n, std::int64_t offset) {
  CAPTURE(n);
  CAPTURE(offset);
  std::mt19937 random(static_cast<unsigned>(1000 * n + offset));
  const auto rule = make_optimizer(config);
  const std::vector<Segment> segments = alternating(n, random);
  Span<float> master(n, offset);
  Span<Gradient> gradient(n, offset + 2);
  using Rounded = std::conditional_t<std::is_void_v<Parameter>, bf16, Parameter>;
  Span<Rounded> parameter(n, offset + 5);
  std::vector<Span<float>> states(rule->states().size(), Span<float>(n, offset + 1));
  for (Span<float>& state : states) state.fill_zero();
  master.fill_normal(random, 0.5);
  std::vector<Oracle> oracle;
  for (std::int64_t i = 0; i < n; ++i) oracle.push_back({static_cast<double>(master[i])});

  for (int t = 1; t <= 5; ++t) {
    const double lr = 0.02 / t;
    const double scale = t == 3 ? 0.25 : 1;
    gradient.fill_normal(random, 2.0);
    rule->step(master.view(), std::is_void_v<Parameter> ? TensorView() : parameter.view(),
               gradient.view(), views_of(states), segments,
               {.learning_rate = lr, .step = t, .gradient_scale = scale});
    for (std::int64_t i = 0; i < n; ++i) {
      Oracle& o = oracle[static_cast<std::size_t>(i)];
      const auto g = static_cast<double>(static_cast<float>(gradient[i]));
      o.step(config, lr, t, scale * g, decays(segments, i));
      REQUIRE(std::abs(static_cast<double>(master[i]) - o.p) < 2e-6 * (1 + std::abs(o.p)));
      if constexpr (!std::is_void_v<Parameter>)
        REQUIRE(std::memcmp(&parameter[i], std::array{Parameter(master[i])}.data(),
                            sizeof(Parameter)) == 0);
    }
  }
  CHECK(master.guards_are_whole());
  CHECK(gradient.guards_are_whole());
  CHECK(parameter.guards_are_whole());
  for (const Span<float>& state : states) CHECK(state.guards_are_whole());
}

template <typename Oracle, typename Config>
void check_all_types(const Config& config) {
  for (const std::int64_t n : kSizes) {
    for (const std::int64_t offset : kOffsets) {
      check_against_oracle<Oracle, Config, float, void>(config, n, offset);
      check_against_oracle<Oracle, Config, bf16, void>(config, n, offset);
      check_against_oracle<Oracle, Config, bf16, bf16>(config, n, offset);
      check_against_oracle<Oracle, Config, float, bf16>(config, n, offset);
      check_against_oracle<Oracle, Config, f16, f16>(config, n, offset);
    }
  }
}

struct Bits {
  std::vector<std::uint32_t> words;
  bool operator==(const Bits&) const = default;
};

/// One step over [0, n) cut at `cuts`, as separate calls on sub-spans; the bits of all that was
/// written.
template <typename Gradient>
Bits bits_after(const Optimizer& rule, std::int64_t n, const std::vector<std::int64_t>& cuts) {
  std::mt19937 random(5);
  Span<float> master(n, 0);
  Span<Gradient> gradient(n, 0);
  Span<bf16> parameter(n, 0);
  std::vector<Span<float>> states(rule.states().size(), Span<float>(n, 0));
  master.fill_normal(random, 1);
  gradient.fill_normal(random, 1);
  for (Span<float>& state : states)
    for (std::int64_t i = 0; i < n; ++i) state[i] = 0.01F * static_cast<float>(random() % 100);
  for (std::size_t c = 0; c + 1 < cuts.size(); ++c) {
    const std::int64_t begin = cuts[c];
    const std::int64_t count = cuts[c + 1] - begin;
    std::vector<TensorView> state;
    for (Span<float>& span : states) state.push_back(span.view().flat_slice(begin, count));
    const std::array segments{Segment{0, count, true}};
    rule.step(master.view().flat_slice(begin, count), parameter.view().flat_slice(begin, count),
              gradient.view().flat_slice(begin, count), state, segments,
              {.learning_rate = 0.1, .step = 3, .gradient_scale = 0.7});
  }
  Bits bits;
  for (std::int64_t i = 0; i < n; ++i) {
    bits.words.push_back(std::bit_cast<std::uint32_t>(master[i]));
    bits.words.push_back(parameter[i].bits);
    for (Span<float>& state : states) bits.words.push_back(std::bit_cast<std::uint32_t>(state[i]));
  }
  return bits;
}

}  // namespace

TEST_CASE("adamw: five steps follow the textbook formula") {
  check_all_types<AdamWOracle>(AdamW{.beta2 = 0.99, .weight_decay = 0.3});
}

TEST_CASE("adamw: without decay, with zero betas") {
  check_all_types<AdamWOracle>(AdamW{.weight_decay = 0});
  check_all_types<AdamWOracle>(AdamW{.beta1 = 0, .beta2 = 0, .epsilon = 1e-3});
}

TEST_CASE("sgd: plain, momentum and nesterov follow the textbook formula") {
  check_all_types<SgdOracle>(Sgd{.momentum = 0, .weight_decay = 0.2});
  check_all_types<SgdOracle>(Sgd{.momentum = 0.9, .weight_decay = 0.2});
  check_all_types<SgdOracle>(Sgd{.momentum = 0.8, .weight_decay = 0.1, .nesterov = true});
}

TEST_CASE("rules: the same bits wherever a span is split") {
  constexpr std::int64_t kCount = 131;
  const std::vector<OptimizerConfig> configs{AdamW{}, Sgd{}, Sgd{.nesterov = true},
                                             Sgd{.momentum = 0}};
  for (const OptimizerConfig& config : configs) {
    const auto rule = make_optimizer(config);
    const Bits whole = bits_after<bf16>(*rule, kCount, {0, kCount});
    const Bits whole_f32 = bits_after<float>(*rule, kCount, {0, kCount});
    for (std::int64_t cut = 0; cut <= kCount; ++cut) {
      REQUIRE(bits_after<bf16>(*rule, kCount, {0, cut, kCount}) == whole);
      REQUIRE(bits_after<float>(*rule, kCount, {0, cut, kCount}) == whole_f32);
    }
    std::vector<std::int64_t> singles;
    for (std::int64_t i = 0; i <= kCount; ++i) singles.push_back(i);
    CHECK(bits_after<bf16>(*rule, kCount, singles) == whole);
  }
}

TEST_CASE("adamw: where the machine has FMA, registers and scalars give the same bits") {
#if defined(__x86_64__)
  if (!__builtin_cpu_supports("fma")) return;
#endif
  constexpr std::int64_t kCount = 777;
  std::mt19937 random(9);
  Span<float> p(kCount, 0);
  Span<float> g(kCount, 0);
  Span<float> m(kCount, 0);
  Span<float> v(kCount, 0);
  for (Span<float>* span : {&p, &g, &m, &v}) span->fill_normal(random, 1);
  for (std::int64_t i = 0; i < kCount; ++i) v[i] = std::abs(v[i]);
  Span<float> ps = p;
  Span<float> ms = m;
  Span<float> vs = v;
  const AdamW config{.weight_decay = 0.5};
  const std::array state{m.view(), v.view()};
  const std::array segments{Segment{0, kCount, true}};
  make_optimizer(config)->step(p.view(), {}, g.view(), state, segments,
                               {.learning_rate = 0.25, .step = 1, .gradient_scale = 0.5});
  const AdamWFactors<float> factors{
      .gradient_scale = 0.5F,
      .beta1 = 0.9F,
      .rest1 = static_cast<float>(1 - 0.9),
      .beta2 = 0.999F,
      .rest2 = static_cast<float>(1 - 0.999),
      .decay = 0.125F,
      .step_size = static_cast<float>(0.25 / (1 - 0.9)),
      .unbias2 = static_cast<float>(1 / std::sqrt(1 - 0.999)),
      .epsilon = 1e-8F,
  };
  for (std::int64_t i = 0; i < kCount; ++i) {
    scalar::adamw_element(ps[i], ms[i], vs[i], g[i], factors, ScalarMath());
    REQUIRE(std::bit_cast<std::uint32_t>(ps[i]) == std::bit_cast<std::uint32_t>(p[i]));
    REQUIRE(std::bit_cast<std::uint32_t>(ms[i]) == std::bit_cast<std::uint32_t>(m[i]));
    REQUIRE(std::bit_cast<std::uint32_t>(vs[i]) == std::bit_cast<std::uint32_t>(v[i]));
  }
}

TEST_CASE("rules: bf16 parameters round as bf16 does, on ties, overflow and NaN") {
  const auto rule = make_optimizer(Sgd{.momentum = 0});
  std::vector<std::uint32_t> words;
  for (std::uint32_t upper = 0; upper < 0x10000; ++upper)
    for (const std::uint32_t low : {0U, 1U, 0x7fffU, 0x8000U, 0x8001U, 0xffffU})
      words.push_back((upper << 16) | low);
  const auto n = static_cast<std::int64_t>(words.size());
  std::vector<float> master(words.size());
  std::memcpy(master.data(), words.data(), 4 * words.size());
  std::vector<float> gradient(words.size(), 0.0F);
  std::vector<bf16> rounded(words.size());
  const std::array segments{Segment{0, n, false}};
  rule->step({master.data(), DType::f32, {n}}, {rounded.data(), DType::bf16, {n}},
             {gradient.data(), DType::f32, {n}}, {}, segments, {.learning_rate = 0});
  for (std::size_t i = 0; i < words.size(); ++i) {
    CAPTURE(words[i]);
    const auto before = std::bit_cast<float>(words[i]);
    const bf16 expected(before);
    if (!std::isfinite(before))  // 0 x infinity: a parameter that is not finite becomes NaN
      REQUIRE(std::isnan(static_cast<float>(rounded[i])));
    else
      REQUIRE(rounded[i].bits == expected.bits);
  }
}

TEST_CASE(
    "rules: every SIMD target of this machine follows the oracle; those with FMA give equal bits") {
  const AdamW config{.beta2 = 0.99, .weight_decay = 0.3};
  const auto rule = make_optimizer(config);
  const Bits best = bits_after<bf16>(*rule, 131, {0, 131});
  const std::int64_t supported = hwy::SupportedTargets() & HWY_TARGETS;
  for (std::int64_t target = 1; target > 0 && target <= HWY_SCALAR; target <<= 1) {
    if ((supported & target) == 0) continue;
    CAPTURE(std::string(hwy::TargetName(target)));
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(target);
    for (const std::int64_t n : kSizes) {
      check_against_oracle<AdamWOracle, AdamW, float, void>(config, n, 1);
      check_against_oracle<AdamWOracle, AdamW, bf16, bf16>(config, n, 3);
      check_against_oracle<AdamWOracle, AdamW, f16, f16>(config, n, 3);
      check_against_oracle<SgdOracle, Sgd, bf16, bf16>(Sgd{.nesterov = true}, n, 2);
    }
    if (target <= HWY_AVX2) CHECK(bits_after<bf16>(*rule, 131, {0, 131}) == best);
  }
  hwy::SetSupportedTargetsForTest(0);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
}

TEST_CASE("rules: names and states") {
  CHECK(make_optimizer(AdamW{})->states().size() == 2);
  CHECK(make_optimizer(AdamW{})->states()[1] == "v");
  CHECK(make_optimizer(Sgd{})->states().size() == 1);
  CHECK(make_optimizer(Sgd{.momentum = 0})->states().empty());
}
