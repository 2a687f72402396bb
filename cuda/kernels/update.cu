// The update rules on a flat: one launch over all segments, one pass over memory, in accesses that
// fill whole sectors. The formulas stand in base/math; step, learning rate and the clip factor are
// read on the device.
#include <cstring>
#include <type_traits>

#include "ashlar/optimizer.hpp"
#include "base/math/adamw.hpp"
#include "base/math/clip.hpp"
#include "base/math/sgd.hpp"
#include "cuda/kernels/device_math.hpp"
#include "cuda/kernels/host.hpp"
#include "cuda/kernels/scalars.hpp"

namespace ashlar::cuda {
namespace {

constexpr int kMostRuns = 128;  // of one launch
constexpr int kQuad = 4;        // elements of a thread: 16 bytes of f32, next to the next thread's
constexpr int kTile = kBlock * kQuad;
// Of an update: each makes the factors of the step, which takes as long as some tiles.
constexpr std::int64_t kMostBlocks = 1024;
using Quad = PackOf<float, kQuad>;

enum class Group : std::uint8_t { untouched, plain, decayed };

/// The span as runs of one group each: run i ends before element end[i].
struct Runs {
  int count = 0;
  std::int64_t end[kMostRuns];
  Group group[kMostRuns];
};

/// What one launch reads and writes. Absent: null.
template <typename Gradient, typename Parameter>
struct Spans {
  std::int64_t first, count;  // elements [first, first + count) of the arrays
  const Gradient* gradient;
  float *master, *state0, *state1, *average;
  Parameter* parameter;
};

struct Clock {
  RunScalars captured;
  const RunScalars* on_device;
  const double* factor;  // null: 1
};

template <typename Config>
using FactorsOf =
    std::conditional_t<std::is_same_v<Config, AdamW>, AdamWFactors<float>, SgdFactors<float>>;

__device__ AdamWFactors<float> factors_of(const AdamW& rule, const RunScalars& run, double factor) {
  return adamw_factors(rule, run.learning_rate, run.step, factor, true, DeviceMath());
}
__device__ SgdFactors<float> factors_of(const Sgd& rule, const RunScalars& run, double factor) {
  return sgd_factors(rule, run.learning_rate, factor, true);
}

__device__ void update_element(const AdamW&, const AdamWFactors<float>& f, float& p, float& m,
                               float& v, float g) {
  scalar::adamw_element(p, m, v, g, f, DeviceMath());
}
__device__ void update_element(const Sgd& rule, const SgdFactors<float>& f, float& p, float& u,
                               float&, float g) {
  if (rule.momentum == 0) {
    scalar::sgd_element(p, g, f, DeviceMath());
  } else if (rule.nesterov) {
    scalar::sgd_momentum_element<true>(p, u, g, f, DeviceMath());
  } else {
    scalar::sgd_momentum_element<false>(p, u, g, f, DeviceMath());
  }
}

/// The first run that ends behind `element`.
__device__ int run_of(const Runs& runs, std::int64_t element) {
  int low = 0, high = runs.count - 1;
  while (low < high) {
    const int middle = (low + high) / 2;
    if (runs.end[middle] > element) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return low;
}

/// Elements [i, i + kQuad) of the spans, `run` not behind theirs. `f` decays.
template <class Config, typename Gradient, typename Parameter>
__device__ void update_quad(const Config& rule, FactorsOf<Config> f, bool first_step,
                            const Runs& runs, int run, const Spans<Gradient, Parameter>& spans,
                            std::int64_t i) {
  const std::int64_t left = spans.count - i, at = spans.first + i;
  const auto load_state = [&](const float* state) {
    return state == nullptr ? Quad() : load_pack<kQuad>(state + at, left);
  };
  const Quad gradient = load_pack<kQuad>(spans.gradient + at, left);
  Quad master = load_state(spans.master), first = load_state(spans.state0);
  Quad second = load_state(spans.state1), average = load_state(spans.average);
  const float ema = static_cast<float>(rule.ema), rest = 1 - ema, decay = f.decay;
  bool touched[kQuad], all = true;
  for (int k = 0; k < kQuad; ++k) {
    while (run + 1 < runs.count && at + k >= runs.end[run]) ++run;
    touched[k] = runs.group[run] != Group::untouched;
    all = all && touched[k];
    if (!touched[k]) continue;
    if (first_step) average.at[k] = master.at[k];
    f.decay = runs.group[run] == Group::decayed ? decay : 0.0F;
    update_element(rule, f, master.at[k], first.at[k], second.at[k], gradient.at[k]);
    average.at[k] = ema * average.at[k] + rest * master.at[k];
  }
  store_pack(master, spans.master + at, left);
  if (spans.state0 != nullptr) store_pack(first, spans.state0 + at, left);
  if (spans.state1 != nullptr) store_pack(second, spans.state1 + at, left);
  if (spans.average != nullptr) store_pack(average, spans.average + at, left);
  if (spans.parameter == nullptr) return;
  if (all) return store_pack(master, spans.parameter + at, left);
  for (int k = 0; k < kQuad; ++k)
    if (k < left && touched[k]) spans.parameter[at + k] = from_float<Parameter>(master.at[k]);
}

/// Blocks go through tiles of kTile elements.
template <class Config, typename Gradient, typename Parameter>
__global__ void __launch_bounds__(kBlock, 4)
    update_spans(Config rule, Runs runs, Clock clock, Spans<Gradient, Parameter> spans) {
  auto& shared_factors = shared<FactorsOf<Config>, struct StepFactors>();
  const RunScalars now = scalars_of_run(clock.captured, clock.on_device);
  if (threadIdx.x == 0)
    shared_factors = factors_of(rule, now, clock.factor == nullptr ? 1.0 : *clock.factor);
  __syncthreads();
  const FactorsOf<Config> factors = shared_factors;
  for (std::int64_t tile = std::int64_t{blockIdx.x} * kTile; tile < spans.count;
       tile += std::int64_t{gridDim.x} * kTile) {
    const std::int64_t i = tile + threadIdx.x * kQuad;
    const int run = run_of(runs, spans.first + tile);
    if (i < spans.count) update_quad(rule, factors, now.step == 1, runs, run, spans, i);
  }
}

/// Calls f(Runs, first, end) for stretches of [0, n) of at most kMostRuns runs. `segments` are
/// triples (begin, end, decays) from `origin` on; what lies between them is left alone.
template <class F>
void for_each_stretch(const std::vector<std::int64_t>& segments, std::int64_t origin,
                      std::int64_t n, const F& f) {
  Runs runs;
  std::int64_t first = 0, covered = 0;
  const auto add = [&](std::int64_t end, Group group) {
    end = std::min(end, n);
    if (end <= covered) return;
    if (runs.count > 0 && runs.group[runs.count - 1] == group) {
      runs.end[runs.count - 1] = covered = end;
      return;
    }
    if (runs.count == kMostRuns) {
      f(runs, first, covered);
      runs.count = 0;
      first = covered;
    }
    runs.end[runs.count] = covered = end;
    runs.group[runs.count++] = group;
  };
  for (std::size_t s = 0; s + 2 < segments.size(); s += 3) {
    add(segments[s] - origin, Group::untouched);
    add(segments[s + 1] - origin, segments[s + 2] != 0 ? Group::decayed : Group::plain);
  }
  if (runs.count > 0) f(runs, first, covered);
}

/// Calls f(TypeTag<T>{}) for the types of gradients and 16-bit parameters.
template <class F>
void with_narrow(DType dtype, const F& f) {
  if (dtype == DType::f16) return f(TypeTag<f16>{});
  with_float(dtype, f);
}

template <class Config>
void run_update(const KernelArguments& a, const Config& rule, std::size_t states) {
  const TensorView& gradient = a.inputs[0];
  const std::int64_t n = gradient.elements();
  const std::size_t of_rule = states - (rule.ema == 0 ? 0 : 1);
  const bool narrow = a.outputs.size() > 1 + states;
  const std::int64_t origin =
      a.attributes.integer("sharded") != 0 ? a.context.communicator->rank() * n : 0;
  const Clock clock{a.context, a.context.on_device, a.inputs[1].as<const double>()};
  const auto state = [&](std::size_t i, bool there) {
    return there ? a.outputs[1 + i].as<float>() : nullptr;
  };
  with_narrow(gradient.dtype, [&](auto from) {
    with_narrow(narrow ? a.outputs[1 + states].dtype : DType::bf16, [&](auto to) {
      using Gradient = typename decltype(from)::type;
      using Parameter = typename decltype(to)::type;
      for_each_stretch(a.attributes.list("segments"), origin, n,
                       [&](const Runs& runs, std::int64_t first, std::int64_t end) {
                         const Spans<Gradient, Parameter> spans{
                             .first = first,
                             .count = end - first,
                             .gradient = gradient.as<const Gradient>(),
                             .master = a.outputs[0].as<float>(),
                             .state0 = state(0, of_rule > 0),
                             .state1 = state(1, of_rule > 1),
                             .average = state(of_rule, states > of_rule),
                             .parameter = narrow ? a.outputs[1 + states].as<Parameter>() : nullptr};
                         const std::int64_t tiles = ceil_div(spans.count, kTile);
                         launch(grid_of(std::min(tiles, kMostBlocks)), dim3(kBlock), 0,
                                a.context.stream, update_spans<Config, Gradient, Parameter>, rule,
                                runs, clock, spans);
                       });
    });
  });
}

/// sum = x in the first micro-batch, sum + x later.
__global__ void accumulate_quads(std::int64_t n, bool first, const float* x, float* sum) {
  const std::int64_t i = thread_in_grid() * kQuad, left = n - i;
  if (left <= 0) return;
  Quad v = load_pack<kQuad>(x + i, left);
  if (!first) {
    const Quad before = load_pack<kQuad>(sum + i, left);
    for (int k = 0; k < kQuad; ++k) v.at[k] = before.at[k] + v.at[k];
  }
  store_pack(v, sum + i, left);
}

/// One thread: norm and clip factor of squares [ranks x flats], added in the order (flat, rank).
__global__ void norm_of_squares(const double* squares, std::int64_t flats, std::int64_t ranks,
                                double clip, double* norm, double* factor) {
  double sum = 0;
  for (std::int64_t flat = 0; flat < flats; ++flat)
    for (std::int64_t rank = 0; rank < ranks; ++rank) sum += squares[rank * flats + flat];
  *norm = std::sqrt(sum);
  *factor = clip_factor(*norm, clip);
}

}  // namespace

void update(const KernelArguments& a) {
  const Attributes& at = a.attributes;
  const std::size_t average = at.number("ema") == 0 ? 0 : 1;
  if (a.inputs[0].elements() == 0) return;
  if (at.has("beta1"))
    return run_update(a,
                      AdamW{0, at.number("beta1"), at.number("beta2"), at.number("epsilon"),
                            at.number("weight_decay"), at.number("ema")},
                      2 + average);
  run_update(a,
             Sgd{0, at.number("momentum"), at.number("weight_decay"), at.integer("nesterov") != 0,
                 at.number("ema")},
             (at.number("momentum") == 0 ? 0 : 1) + average);
}

void accumulate(const KernelArguments& a) {
  const std::int64_t n = a.outputs[0].elements();
  if (a.outputs[0].dtype != DType::f32)
    throw InvalidArgument("on CUDA gradients are accumulated in f32: cast them first");
  if (n == 0) return;
  launch(grid_of_threads(ceil_div(n, kQuad)), dim3(kBlock), 0, a.context.stream, accumulate_quads,
         n, a.context.micro_batch == 0, a.inputs[1].as<const float>(), a.outputs[0].as<float>());
}

void gradient_norm(const KernelArguments& a) {
  const std::int64_t ranks = a.attributes.integer("ranks");
  launch(dim3(1), dim3(1), 0, a.context.stream, norm_of_squares, a.inputs[0].as<const double>(),
         a.inputs[0].elements() / ranks, ranks, a.attributes.number("clip"),
         a.outputs[0].as<double>(), a.outputs[1].as<double>());
}

}  // namespace ashlar::cuda
