#include "ops/dropout_kernels.hpp"

#include "base/math/philox.hpp"
#include "ops/simd_targets.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/dropout_kernels.cpp"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "ops/parallel.hpp"
#include "ops/simd_inl.hpp"
#include "ops/with_dtype.hpp"

HWY_BEFORE_NAMESPACE();
namespace ashlar::HWY_NAMESPACE {
namespace {

constexpr std::int64_t kBlocks = 256;  // Philox blocks made at a time, 4 words each
constexpr std::int64_t kChunk = 1 << 14;

/// Words of the blocks [first, first + kBlocks).
void make_words(std::uint64_t key, std::uint64_t stream, std::uint64_t first,
                std::uint32_t* words) {
#if HWY_TARGET == HWY_SCALAR
  for (std::int64_t b = 0; b < kBlocks; ++b) {
    const RandomWords block = philox(key, stream, first + static_cast<std::uint64_t>(b));
    std::copy(block.begin(), block.end(), words + 4 * b);
  }
#else
  const hn::ScalableTag<std::uint32_t> d;
  const hn::Repartition<std::uint64_t, decltype(d)> pair;
  using V = hn::Vec<decltype(d)>;
  const auto multiply = [&](V a, std::uint32_t factor, V* high, V* low) HWY_ATTR {
    const auto f = hn::Set(d, factor);
    const auto even = hn::BitCast(d, hn::MulEven(a, f));
    const auto odd =
        hn::BitCast(d, hn::MulEven(hn::BitCast(d, hn::ShiftRight<32>(hn::BitCast(pair, a))), f));
    *low = hn::OddEven(hn::BitCast(d, hn::ShiftLeft<32>(hn::BitCast(pair, odd))), even);
    *high = hn::OddEven(odd, hn::BitCast(d, hn::ShiftRight<32>(hn::BitCast(pair, even))));
  };
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  for (std::int64_t b = 0; b < kBlocks; b += lanes) {
    HWY_ALIGN std::uint32_t low_index[hn::MaxLanes(d)], high_index[hn::MaxLanes(d)];
    for (std::int64_t i = 0; i < lanes; ++i) {
      const std::uint64_t index = first + static_cast<std::uint64_t>(b + i);
      low_index[i] = static_cast<std::uint32_t>(index);
      high_index[i] = static_cast<std::uint32_t>(index >> 32);
    }
    V c0 = hn::Load(d, low_index), c1 = hn::Load(d, high_index);
    V c2 = hn::Set(d, static_cast<std::uint32_t>(stream));
    V c3 = hn::Set(d, static_cast<std::uint32_t>(stream >> 32));
    auto k0 = static_cast<std::uint32_t>(key), k1 = static_cast<std::uint32_t>(key >> 32);
    for (int round = 0; round < 10; ++round) {
      V high_a, low_a, high_b, low_b;
      multiply(c0, 0xD2511F53U, &high_a, &low_a);
      multiply(c2, 0xCD9E8D57U, &high_b, &low_b);
      c0 = hn::Xor(hn::Xor(high_b, c1), hn::Set(d, k0));
      c1 = low_b;
      c2 = hn::Xor(hn::Xor(high_a, c3), hn::Set(d, k1));
      c3 = low_a;
      k0 += 0x9E3779B9U;
      k1 += 0xBB67AE85U;
    }
    hn::StoreInterleaved4(c0, c1, c2, c3, d, words + 4 * b);
  }
#endif
}

/// y = x / (1 - p) where the word reaches p, else 0, for elements [begin, end); `origin` is the
/// global index of element 0.
template <typename T>
void drop(const KernelArguments& a, std::uint64_t origin, std::int64_t begin, std::int64_t end) {
  const WideTag<T> d;
  const double probability = a.attributes.number("probability");
  const auto threshold = static_cast<std::uint32_t>(std::ldexp(probability, 32));
  const auto scale = static_cast<Wide<T>>(1 / (1 - probability));
  const std::uint64_t key = kernels::dropout_key(a.context.seed, a.attributes.integer("key"));
  const std::uint64_t stream = kernels::dropout_stream(a.context.step, a.context.micro_batch);
  HWY_ALIGN std::uint32_t words[4 * kBlocks];
  HWY_ALIGN Wide<T> factors[4 * kBlocks];
  for (std::int64_t i = begin; i < end;) {
    const std::uint64_t first = origin + static_cast<std::uint64_t>(i);
    const auto skipped = static_cast<std::int64_t>(first % 4);
    const std::int64_t count = std::min(4 * kBlocks - skipped, end - i);
    make_words(key, stream, first / 4, words);
    for (std::int64_t k = 0; k < count; ++k)
      factors[k] = words[skipped + k] < threshold ? Wide<T>{0} : scale;
    const T* x = a.inputs[0].as<T>() + i;
    T* y = a.outputs[0].as<T>() + i;
    for_each_vector(d, count, [&](std::int64_t k, std::int64_t m) HWY_ATTR {
      const auto factor = hn::Load(d, factors + k);
      const auto kept = hn::Ne(factor, hn::Zero(d));
      store_upto(d, hn::IfThenElseZero(kept, hn::Mul(load_upto(d, x + k, m), factor)), y + k, m);
    });
    i += count;
  }
}

void run_dropout(const KernelArguments& a) {
  const TensorView& x = a.inputs[0];
  if (x.elements() == 0) return;
  const auto origin =
      static_cast<std::uint64_t>(a.context.first_sample * (x.elements() / x.shape[0]));
  with_float(x.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    for_each_chunk(a.context, x.elements(), kChunk,
                   [&](std::int64_t begin, std::int64_t end) { drop<T>(a, origin, begin, end); });
  });
}

}  // namespace
}  // namespace ashlar::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ashlar {
HWY_EXPORT(run_dropout);

namespace kernels {
void dropout(const KernelArguments& arguments) { HWY_DYNAMIC_DISPATCH(run_dropout)(arguments); }

}  // namespace kernels
}  // namespace ashlar
#endif
