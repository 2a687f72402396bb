// One step from gradients in somebody's memory to updated parameters. Read step().
#pragma once

#include <fmt/format.h>

#include <cmath>
#include <exception>
#include <nlohmann/json.hpp>

#include "ashlar/checkpoint.hpp"
#include "ashlar/device_memory.hpp"
#include "ashlar/error.hpp"
#include "ashlar/sharded_optimizer.hpp"
#include "base/debug.hpp"
#include "sharding/convert.hpp"
#include "sharding/flat_update.hpp"
#include "sharding/gradient_reducer.hpp"
#include "sharding/host_side.hpp"
#include "sharding/initialize.hpp"
#include "sharding/manifest.hpp"
#include "sharding/norm_exchange.hpp"
#include "sharding/parameter_sync.hpp"
#include "sharding/readable.hpp"
#include "sharding/shard_update.hpp"
#include "sharding/sharded_states.hpp"
#include "sharding/transient_pool.hpp"
#include "sharding/unit_gatherer.hpp"

namespace ashlar {

struct ShardedOptimizer::Implementation {
  Implementation(const ParameterList& list, Communicator& ranks, const OptimizerConfig& optimizer,
                 const ShardedOptions& settings)
      : communicator(ranks),
        options(settings),
        rule(optimizer),
        update(make_optimizer(optimizer)),
        pool(settings.threads),
        registered(agree(list, ranks, optimizer, settings)),
        layout(registered.parameters, registered.units, ranks.size()),
        ops(settings.stream.is_inline() ? ElementOps() : ElementOps(settings)),
        own_reductions(settings.overlap ? ranks.split(0, ranks.rank()) : nullptr),
        reductions(own_reductions ? *own_reductions : ranks),
        states(layout, registered, optimizer, options, ops,
               settings.stage == 3 ? ranks : reductions),
        buckets(reductions.window(), "buckets"),
        units(*settings.memory, "gathered units"),
        guard(settings.stage == 3 && !ops.on_device() && (settings.guard || kDebugBuild)
                  ? std::make_unique<ReleasedGuard>()
                  : nullptr),
        reducer(layout, registered, options, states.views(), ops, buckets.cache, reductions),
        gatherer(layout, states.views(), ops,
                 guard ? static_cast<MemoryResource&>(*guard) : units.cache, ranks,
                 settings.overlap ? settings.prefetch : 0, guard.get()),
        own_update(layout, registered, options.stage, states.views(), *update, ranks.rank()),
        norms(layout.flats().size(), ranks.size()),
        norm_goes_along(may_send_norm_along()),
        rate(rate_of(optimizer)),
        scale(settings.loss_scale ? settings.loss_scale->initial : 1) {
    for (int p = 0; p < static_cast<int>(registered.parameters.size()); ++p)
      numbers.emplace(registered.parameters[static_cast<std::size_t>(p)].name, p);
    const HostSide host(registered, states.views(), ops);
    if (registered.owned) {
      flat_values(host).fill(options.source ? options.source
                                            : [this](const Parameter& parameter, std::int64_t first,
                                                     TensorView values) {
                                                initialize(parameter, options.seed, first, values);
                                              });
    } else {
      take_over_values(layout, host.registered(), options, communicator);
      ShardUpdate(layout, host.registered(), options.stage, host.views(), *update, ranks.rank())
          .fill_masters();
    }
    host.store();
    if (ops.on_device())
      factor = Buffer(*settings.memory, sizeof(double), Category::optimizer_state, ops.stream());
  }

  ~Implementation() {
    if (ops.on_device()) ops.settle(reductions, options.replicas);
    if (own_reductions && std::uncaught_exceptions() > exceptions)
      own_reductions->abort(refusal.empty() ? "an exception ended its optimizer" : refusal);
  }
  Implementation(const Implementation&) = delete;
  Implementation& operator=(const Implementation&) = delete;

  /// Calls what may refuse, and remembers why: if this rank leaves because of it, others learn it.
  template <typename Call>
  auto noting(const Call& call) {
    try {
      return call();
    } catch (const InvalidArgument& error) {
      refusal = error.what();
      throw;
    }
  }

  FlatValues flat_values(const HostSide& host) const {
    return {layout, rule, host.views(), communicator};
  }

  const TensorView& state(const Flat& flat, std::string_view role) const {
    return states.views().find(state_name(flat, role))->second;
  }

  UpdateResult step() {
    if (options.stage == 3) gatherer.end_step();
    reducer.finish();
    norms.set(reducer.squares(), reducer.touched());
    UpdateResult result;
    result.learning_rate = options.schedule ? options.schedule->rate(steps + 1) : rate;
    const double share = 1.0 / (static_cast<double>(all_ranks() * micro_batches) * scale);
    if (!norm_goes_along) {
      norms.exchange(communicator);
      if (!touched_anywhere()) {
        reducer.restart();
        throw InvalidArgument("step() without any gradient: no rank has reported or written one");
      }
      result.grad_norm = norms.norm() * share;
      result.applied = !checks_norm() || std::isfinite(result.grad_norm);
    }
    if (result.applied) apply(result, share);
    if (norm_goes_along) result.grad_norm = norms.norm() * share;
    adjust_scale(result.applied);
    reducer.restart();
    micro_batches = 1;
    last_norm = result.grad_norm;
    return result;
  }

  void apply(const UpdateResult& result, double share) {
    ++steps;
    host_factor = share * clip_factor(result.grad_norm, options.clip);
    const StepScalars scalars{result.learning_rate, steps, host_factor};
    if (ops.on_device()) {
      copy_async(factor.data(), &host_factor, sizeof(double), ops.stream());
      own_update.step(reducer, scalars, ops, rule, factor.view(DType::f64, {}));
    } else {
      own_update.step(reducer, scalars, pool);
    }
    if (options.stage != 1 && options.stage != 2) return;
    std::vector<Transfer> along;
    if (norm_goes_along) along.push_back(norms.transfer());
    spread_parameters(layout, registered, states.views(), ops, buckets.cache, reductions,
                      options.bucket_bytes, std::move(along));
  }

  bool touched_anywhere() {
    float groups = norms.touched() ? 1 : 0;
    if (options.replicas != nullptr)
      options.replicas->all_reduce({&groups, DType::f32, {1}}, "touched").wait();
    return groups > 0;
  }

  bool checks_norm() const { return options.clip > 0 || options.loss_scale; }

  /// Nothing depends on the norm: it saves a collective to send it with the parameters.
  bool may_send_norm_along() const {
    return !ops.on_device() && (options.stage == 1 || options.stage == 2) && !checks_norm() &&
           !registered.owned && std::ranges::all_of(layout.flats(), [&](const Flat& flat) {
             return !flat.trainable || registered.keeps_gradients(flat);
           });
  }

  int all_ranks() const {
    return communicator.size() * (options.replicas == nullptr ? 1 : options.replicas->size());
  }

  void adjust_scale(bool applied) {
    if (!options.loss_scale) return;
    good_steps = applied ? good_steps + 1 : 0;
    if (!applied) scale /= 2;
    if (good_steps == options.loss_scale->growth_interval) {
      scale *= 2;
      good_steps = 0;
    }
  }

  int find(std::string_view name) const {
    const auto found = numbers.find(name);
    if (found == numbers.end())
      throw InvalidArgument(fmt::format("no parameter is called '{}'", name));
    return found->second;
  }

  int find_trainable(std::string_view name) const {
    const int p = find(name);
    if (!registered.parameters[static_cast<std::size_t>(p)].trainable)
      throw InvalidArgument(fmt::format("parameter '{}' is frozen and has no gradient", name));
    return p;
  }

  TensorView values(int p) const {
    const Parameter& parameter = registered.parameters[static_cast<std::size_t>(p)];
    if (!registered.owned) return registered.values[static_cast<std::size_t>(p)];
    if (options.stage == 3) {
      if (gatherer.held(parameter.unit)) return gatherer.whole(p);
      throw InvalidArgument(
          fmt::format("parameter '{}' is touched outside of a lease of its unit '{}'",
                      parameter.name, registered.units[static_cast<std::size_t>(parameter.unit)]));
    }
    const Flat& flat = layout.flats()[static_cast<std::size_t>(layout.flat_of(p))];
    TensorView view = state(flat, "parameter");
    return {view.flat_slice(layout.entry_of(p).begin, 0).data, flat.dtype, parameter.shape};
  }

  void read(int p, const TensorView& out, const ReadOptions& how) const {
    const Flat& flat = layout.flats()[static_cast<std::size_t>(layout.flat_of(p))];
    const bool local = !how.average && options.stage != 3 && !has_master(flat);
    const auto check = [&] {
      require_readable(registered.parameters[static_cast<std::size_t>(p)], out, how,
                       how.everywhere || communicator.rank() == 0, update->states());
    };
    if (local) {
      check();
      if (out.data != nullptr) read_own(values(p), out);
      return;
    }
    collectively(communicator, check);
    const Flat* const part = &layout.flats()[static_cast<std::size_t>(layout.flat_of(p))];
    flat_values(HostSide(registered, states.views(), ops, part))
        .read(p, out, how.average ? "ema" : "");
    if (how.everywhere) communicator.broadcast(out, 0, "read").wait();
  }

  void read_own(const TensorView& from, const TensorView& out) const {
    if (!ops.on_device()) return convert(from.data, from.dtype, out);
    const HostCopy copy(from, ops);
    ops.stream().synchronize();
    convert(copy.view().data, from.dtype, out);
  }

  void save(const std::filesystem::path& directory, std::string_view counters) const {
    nlohmann::json all = parse_counters(counters);
    all["step"] = steps;
    all["loss_scale"] = scale;
    const auto write = [&] {
      const HostSide host(registered, states.views(), ops);
      const ParameterImage image(layout, host.registered(), host.views(), communicator, false);
      const FlatValues values(layout, rule, image.views(), communicator);
      save_checkpoint(communicator, directory, layout, values.shards(), all.dump());
    };
    if (options.replicas == nullptr) return write();
    collectively(*options.replicas, [&] {
      if (options.replicas->rank() == 0) write();
    });
  }

  std::string load(const std::filesystem::path& directory) {
    const HostSide host(registered, states.views(), ops);
    ParameterImage image(layout, host.registered(), host.views(), communicator, true);
    FlatValues values(layout, rule, image.views(), communicator);
    const std::string text = load_checkpoint(communicator, directory, layout, values.shards());
    values.spread();
    image.write_back();
    host.store();
    const auto counters = nlohmann::json::parse(text);
    steps = counters.value("step", std::int64_t{0});
    if (options.loss_scale) scale = counters.value("loss_scale", scale);
    return text;
  }

  Communicator& communicator;
  ShardedOptions options;
  OptimizerConfig rule;
  std::unique_ptr<Optimizer> update;
  ThreadPool pool;
  Registered registered;
  std::map<std::string, int, std::less<>> numbers;  // of parameters, by name
  FlatLayout layout;
  // What travels beside the model goes its own way: a rank whose branch leaves a gradient out
  // reduces later than others, and still gathers, or calls what its program calls, when they do.
  ElementOps ops;
  std::unique_ptr<Communicator> own_reductions;
  Communicator& reductions;
  ShardedStates states;
  TransientPool buckets, units;
  std::unique_ptr<ReleasedGuard> guard;  // instead of units; null: off
  GradientReducer reducer;
  UnitGatherer gatherer;
  ShardUpdate own_update;
  NormExchange norms;
  bool norm_goes_along;
  double rate;
  double scale;
  std::int64_t good_steps = 0;  // since the scale last changed
  std::int64_t steps = 0;
  int micro_batches = 1;
  bool accumulating = false;
  double last_norm = 0;
  double host_factor = 1;  // gradients are multiplied by it
  Buffer factor;           // the same on the device
  std::string refusal;     // the last one
  int exceptions = std::uncaught_exceptions();
};

}  // namespace ashlar
