// The update rules on flats: one launch over all that its arguments name, one pass over memory, in
// accesses that fill whole sectors. The formulas stand in base/math; step, learning rate and the
// clip factor are read on the device.
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

constexpr int kMostSpans = 28;  // of one launch, whose arguments are to fit 4 KiB
constexpr int kMostRuns = 224;  // likewise
constexpr int kQuad = 4;        // elements of a thread: 16 bytes of f32, next to the next thread's
constexpr int kTile = kBlock * kQuad;
// Of an update: each makes the factors of the step, which takes as long as some tiles.
constexpr std::int64_t kMostBlocks = 1024;
using Quad = PackOf<float, kQuad>;

enum class Group : std::uint8_t { untouched, plain, decayed };

/// Elements of one flat, from `begin` on among the launch's. Absent arrays: null.
template <typename Gradient, typename Parameter>
struct Span {
  std::int64_t begin, count;
  const Gradient* gradient;
  float *master, *state0, *state1, *average;
  Parameter* parameter;
};

/// What one launch goes through: spans that each begin with a tile, as runs of one group each. Run
/// i ends before element run_end[i].
template <typename Gradient, typename Parameter>
struct Table {
  std::int64_t tiles = 0;
  int spans = 0, runs = 0;
  Span<Gradient, Parameter> span[kMostSpans];
  std::int64_t run_end[kMostRuns];
  Group group[kMostRuns];
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

/// Elements [i, i + kQuad) of a span, `run` not behind theirs. `f` decays.
template <class Config, typename Gradient, typename Parameter>
__device__ void update_quad(const Config& rule, FactorsOf<Config> f, bool first_step,
                            const Table<Gradient, Parameter>& table, int run,
                            const Span<Gradient, Parameter>& span, std::int64_t i) {
  const std::int64_t left = span.count - i, element = span.begin + i;
  const auto load_state = [&](const float* state) {
    return state == nullptr ? Quad() : load_pack<kQuad>(state + i, left);
  };
  const Quad gradient = load_pack<kQuad>(span.gradient + i, left);
  Quad master = load_state(span.master), first = load_state(span.state0);
  Quad second = load_state(span.state1), average = load_state(span.average);
  const float ema = static_cast<float>(rule.ema), rest = 1 - ema, decay = f.decay;
  bool touched[kQuad], all = true;
  for (int k = 0; k < kQuad; ++k) {
    while (run + 1 < table.runs && element + k >= table.run_end[run]) ++run;
    touched[k] = table.group[run] != Group::untouched;
    all = all && touched[k];
    if (!touched[k]) continue;
    if (first_step) average.at[k] = master.at[k];
    f.decay = table.group[run] == Group::decayed ? decay : 0.0F;
    update_element(rule, f, master.at[k], first.at[k], second.at[k], gradient.at[k]);
    average.at[k] = ema * average.at[k] + rest * master.at[k];
  }
  store_pack(master, span.master + i, left);
  if (span.state0 != nullptr) store_pack(first, span.state0 + i, left);
  if (span.state1 != nullptr) store_pack(second, span.state1 + i, left);
  if (span.average != nullptr) store_pack(average, span.average + i, left);
  if (span.parameter == nullptr) return;
  if (all) return store_pack(master, span.parameter + i, left);
  for (int k = 0; k < kQuad; ++k)
    if (k < left && touched[k]) span.parameter[i + k] = from_float<Parameter>(master.at[k]);
}

/// Blocks go through tiles of kTile elements, in ascending order.
template <class Config, typename Gradient, typename Parameter>
__global__ void __launch_bounds__(kBlock, 4)
    update_spans(Config rule, Table<Gradient, Parameter> table, Clock clock) {
  auto& shared_factors = shared<FactorsOf<Config>, struct StepFactors>();
  const RunScalars now = scalars_of_run(clock.captured, clock.on_device);
  if (threadIdx.x == 0)
    shared_factors = factors_of(rule, now, clock.factor == nullptr ? 1.0 : *clock.factor);
  __syncthreads();
  const FactorsOf<Config> factors = shared_factors;
  int at = 0, run = 0;
  for (std::int64_t tile = blockIdx.x; tile < table.tiles; tile += gridDim.x) {
    const std::int64_t first = tile * kTile;
    while (at + 1 < table.spans && table.span[at + 1].begin <= first) ++at;
    while (run + 1 < table.runs && table.run_end[run] <= first) ++run;
    const Span<Gradient, Parameter>& span = table.span[at];
    const std::int64_t i = first - span.begin + threadIdx.x * kQuad;
    if (i < span.count) update_quad(rule, factors, now.step == 1, table, run, span, i);
  }
}

/// Fills tables with spans and launches each when it is full.
template <class Config, typename Gradient, typename Parameter>
class Launches {
 public:
  using Spanned = Span<Gradient, Parameter>;

  Launches(const Config& rule, const Clock& clock, StreamRef stream)
      : rule_(rule), clock_(clock), stream_(stream) {}

  /// A span whose elements follow.
  void begin(Spanned span) {
    if (table_.spans == kMostSpans) flush();
    span.begin = table_.tiles * kTile;
    span.count = 0;
    table_.span[table_.spans++] = span;
  }

  /// The span's next `count` elements.
  void add(std::int64_t count, Group group) {
    const bool joins = table_.runs > 0 && table_.group[table_.runs - 1] == group;
    if (!joins && table_.runs == kMostRuns) {
      const Spanned rest = behind(table_.span[table_.spans - 1]);
      flush();
      begin(rest);
    }
    if (!joins) table_.group[table_.runs++] = group;
    Spanned& span = table_.span[table_.spans - 1];
    span.count += count;
    table_.run_end[table_.runs - 1] = span.begin + span.count;
    table_.tiles = ceil_div(span.begin + span.count, kTile);
  }

  void flush() {
    static_assert(sizeof(Config) + sizeof(table_) + sizeof(Clock) <= 4096);
    if (table_.tiles > 0)
      launch(grid_of(std::min(table_.tiles, kMostBlocks)), dim3(kBlock), 0, stream_,
             update_spans<Config, Gradient, Parameter>, rule_, table_, clock_);
    table_.tiles = 0;
    table_.spans = table_.runs = 0;
  }

 private:
  /// What of the arrays lies behind the span.
  static Spanned behind(Spanned span) {
    span.gradient += span.count;
    for (float** array : {&span.master, &span.state0, &span.state1, &span.average})
      if (*array != nullptr) *array += span.count;
    if (span.parameter != nullptr) span.parameter += span.count;
    return span;
  }

  Config rule_;
  Clock clock_;
  StreamRef stream_;
  Table<Gradient, Parameter> table_;
};

/// Calls f(count, group) for runs of elements [origin, origin + n), one behind the other.
/// `segments` are triples (begin, end, decays); what lies between them is left alone.
template <class F>
void for_each_run(const std::vector<std::int64_t>& segments, std::int64_t origin, std::int64_t n,
                  const F& f) {
  std::int64_t covered = 0;
  const auto until = [&](std::int64_t end, Group group) {
    end = std::min(end - origin, n);
    if (end <= covered) return;
    f(end - covered, group);
    covered = end;
  };
  for (std::size_t s = 0; s + 2 < segments.size() && segments[s] < origin + n; s += 3) {
    until(segments[s], Group::untouched);
    until(segments[s + 1], segments[s + 2] != 0 ? Group::decayed : Group::plain);
  }
}

/// Calls f(TypeTag<T>{}) for the types of gradients and 16-bit parameters.
template <class F>
void with_narrow(DType dtype, const F& f) {
  if (dtype == DType::f16) return f(TypeTag<f16>{});
  with_float(dtype, f);
}

template <class Config>
void run_update(const KernelArguments& a, const Config& rule, std::size_t states) {
  const auto flats = static_cast<std::size_t>(a.attributes.integer("flats"));
  const std::size_t each = a.outputs.size() / flats;
  const std::size_t of_rule = states - (rule.ema == 0 ? 0 : 1);
  const bool narrow = each > 1 + states, sharded = a.attributes.integer("sharded") != 0;
  const Clock clock{a.context, a.context.on_device, a.inputs[flats].as<const double>()};
  with_narrow(a.inputs[0].dtype, [&](auto from) {
    with_narrow(narrow ? a.outputs[1 + states].dtype : DType::bf16, [&](auto to) {
      using Gradient = typename decltype(from)::type;
      using Parameter = typename decltype(to)::type;
      Launches<Config, Gradient, Parameter> launches(rule, clock, a.context.stream);
      std::int64_t end = 0;  // of the flat, among all elements of whole flats
      for (std::size_t f = 0; f < flats; ++f) {
        const std::int64_t n = a.inputs[f].elements();
        const std::int64_t origin = end + (sharded ? a.context.communicator->rank() * n : 0);
        end += sharded ? a.context.communicator->size() * n : n;
        if (n == 0) continue;
        const TensorView* const out = a.outputs.data() + f * each;
        const auto state = [&](std::size_t i, bool there) {
          return there ? out[1 + i].as<float>() : nullptr;
        };
        launches.begin({.begin = 0,
                        .count = 0,
                        .gradient = a.inputs[f].as<const Gradient>(),
                        .master = out[0].as<float>(),
                        .state0 = state(0, of_rule > 0),
                        .state1 = state(1, of_rule > 1),
                        .average = state(of_rule, states > of_rule),
                        .parameter = narrow ? out[1 + states].as<Parameter>() : nullptr});
        for_each_run(a.attributes.list("segments"), origin, n,
                     [&](std::int64_t count, Group group) { launches.add(count, group); });
      }
      launches.flush();
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
