#include "sharding/parameter_sync.hpp"

#include <fmt/format.h>

#include <cmath>
#include <deque>

#include "ashlar/error.hpp"
#include "base/hash.hpp"
#include "comm/settle.hpp"
#include "sharding/collective_ops.hpp"

namespace ashlar {
namespace {

void require_options(const Registered& registered, const OptimizerConfig& optimizer,
                     const ShardedOptions& options) {
  require_rate(options.schedule ? options.schedule->lr : rate_of(optimizer));
  if (options.stage < 0 || options.stage > 3)
    throw InvalidArgument(
        fmt::format("ZeRO stage {} does not exist; use 0, 1, 2 or 3", options.stage));
  if (options.stage == 3 && !registered.owned)
    throw InvalidArgument(
        "stage 3 frees parameters, which memory of the caller does not allow: "
        "ParameterList::allocate them");
  if (options.bucket_bytes < 1 || options.prefetch < 0 || !(options.clip >= 0))
    throw InvalidArgument(fmt::format("bucket_bytes {}, prefetch {} or clip {} is out of range",
                                      options.bucket_bytes, options.prefetch, options.clip));
  if (options.reduce && *options.reduce != DType::f32 && *options.reduce != DType::bf16 &&
      *options.reduce != DType::f16)
    throw InvalidArgument(fmt::format("gradients cannot travel as {}", name_of(*options.reduce)));
  if (!options.stream.is_inline() && options.guard)
    throw InvalidArgument(
        "ShardedOptions::guard watches the host's accesses to its own pages, which memory of a "
        "device has none of: leave guard or stream out");
  const auto& scale = options.loss_scale;
  if (scale && !(scale->initial > 0 && std::isfinite(scale->initial) && scale->growth_interval > 0))
    throw InvalidArgument(
        fmt::format("a loss scale of {} that grows after {} steps: both must be positive",
                    scale->initial, scale->growth_interval));
}

std::string describe(const AdamW& rule) {
  return fmt::format("AdamW: rate {}, betas {} and {}, epsilon {}, decay {}, ema {}", rule.lr,
                     rule.beta1, rule.beta2, rule.epsilon, rule.weight_decay, rule.ema);
}

std::string describe(const Sgd& rule) {
  return fmt::format("Sgd: rate {}, {}momentum {}, decay {}, ema {}", rule.lr,
                     rule.nesterov ? "Nesterov " : "", rule.momentum, rule.weight_decay, rule.ema);
}

std::string describe(const std::optional<Schedule>& schedule) {
  if (!schedule) return "no schedule";
  return fmt::format("schedule of kind {}: rate {} after {} steps of warm-up, {} steps, floor {}",
                     static_cast<int>(schedule->kind), schedule->lr, schedule->warmup,
                     schedule->steps, schedule->floor);
}

std::string describe(const std::optional<LossScale>& scale) {
  if (!scale) return "no loss scale";
  return fmt::format("loss scale {}, doubled after {} steps", scale->initial,
                     scale->growth_interval);
}

std::vector<std::string> agreement_lines(const Registered& registered,
                                         const OptimizerConfig& optimizer,
                                         const ShardedOptions& options) {
  std::vector<std::string> lines;
  for (std::size_t p = 0; p < registered.parameters.size(); ++p) {
    const Parameter& parameter = registered.parameters[p];
    const TensorView& gradient = registered.gradients[p];
    const Initializer& initial = parameter.initializer;
    lines.push_back(fmt::format(
        "parameter '{}' {} {} in unit '{}'{}{}, gradient {}{}", parameter.name,
        to_string(parameter.shape), name_of(parameter.dtype),
        registered.units[static_cast<std::size_t>(parameter.unit)],
        parameter.trainable ? "" : ", frozen", parameter.decay ? "" : ", without decay",
        gradient.data == nullptr ? "elsewhere" : name_of(gradient.dtype),
        registered.owned
            ? fmt::format(", initializer {} of {}", static_cast<int>(initial.kind), initial.value)
            : ""));
  }
  lines.push_back(fmt::format("stage {}, buckets of {}, prefetch {}, overlap {}, clip {}, seed {}",
                              options.stage, options.bucket_bytes, options.prefetch,
                              options.overlap, options.clip, options.seed));
  lines.push_back(fmt::format("gradients travel as {}",
                              options.reduce ? name_of(*options.reduce) : "they are"));
  lines.push_back(std::visit([](const auto& rule) { return describe(rule); }, optimizer));
  lines.push_back(describe(options.schedule));
  lines.push_back(describe(options.loss_scale));
  lines.push_back(options.sync ? "rank 0's values" : "values of each rank");
  return lines;
}

/// A check in one group of shards; where there are several, what fails in one fails in all.
void in_each_group(Communicator* replicas, const std::function<void()>& check) {
  if (replicas == nullptr) return check();
  collectively(*replicas, check);
}

/// Over all groups. @throws InvalidArgument on every rank of each.
void agree_on(std::string_view what, const std::vector<std::string>& lines,
              Communicator& communicator, Communicator* replicas) {
  in_each_group(replicas, [&] { require_agreement(communicator, what, lines); });
  if (replicas != nullptr) require_agreement(*replicas, what, lines);
}

/// Bytes of what lies in all gaps are not compared: there are none in the caller's memory.
std::vector<std::string> checksums(const Registered& registered) {
  std::vector<std::string> lines;
  for (std::size_t p = 0; p < registered.parameters.size(); ++p) {
    const TensorView& values = registered.values[p];
    const std::string_view bytes(reinterpret_cast<const char*>(values.data),
                                 static_cast<std::size_t>(values.bytes()));
    lines.push_back(
        fmt::format("parameter '{}' {:016x}", registered.parameters[p].name, fnv1a64(bytes)));
  }
  return lines;
}

}  // namespace

double rate_of(const OptimizerConfig& optimizer) {
  return std::visit([](const auto& rule) { return rule.lr; }, optimizer);
}

void require_rate(double rate) {
  if (!(rate >= 0 && std::isfinite(rate)))
    throw InvalidArgument(fmt::format("a learning rate of {}: it must be finite, 0 or more", rate));
}

Registered agree(const ParameterList& list, Communicator& communicator,
                 const OptimizerConfig& optimizer, const ShardedOptions& options) {
  Registered registered;
  in_each_group(options.replicas, [&] {
    collectively(communicator, [&] {
      registered = resolve_units(list);
      require_options(registered, optimizer, options);
    });
  });
  agree_on("registered parameters", agreement_lines(registered, optimizer, options), communicator,
           options.replicas);
  return registered;
}

void take_over_values(const FlatLayout& layout, const Registered& registered,
                      const ShardedOptions& options, Communicator& communicator) {
  if (!options.sync) {
    agree_on("first values", checksums(registered), communicator, options.replicas);
    return;
  }
  for (std::size_t p = 0; p < registered.values.size(); ++p) {
    const TensorView& values = registered.values[p];
    const std::string& name = layout.parameters()[p].name;
    communicator.broadcast(values, 0, name).wait();
    if (options.replicas != nullptr) options.replicas->broadcast(values, 0, name).wait();
  }
}

namespace {

/// One bucket on its way to all ranks.
struct Spreading {
  std::vector<const Flat*> flats;
  std::vector<Buffer> buffers;  // by flat, of the caller's memory
  Work work;
};

class Spreader {
 public:
  Spreader(const Registered& registered, const StateViews& states, ElementOps& ops,
           MemoryResource& pool, Communicator& communicator)
      : registered_(registered),
        states_(states),
        ops_(ops),
        pool_(pool),
        communicator_(communicator) {}

  ~Spreader() {
    detail::settle_all({&communicator_}, in_flight_,
                       [](Spreading& bucket) -> Work& { return bucket.work; });
  }
  Spreader(const Spreader&) = delete;
  Spreader& operator=(const Spreader&) = delete;

  /// @param transfers that go along
  void start(std::vector<const Flat*> flats, std::vector<Transfer> transfers = {}) {
    if (in_flight_.size() >= 2) finish_one();
    Spreading& next = in_flight_.emplace_back();
    next.flats = std::move(flats);
    for (const Flat* flat : next.flats) {
      const TensorView whole = whole_of(*flat, next);
      transfers.push_back({own_part(*flat, whole, communicator_.rank()), whole});
    }
    next.work = communicator_.all_gather(
        transfers, next.flats.empty() ? "squared norms" : next.flats.front()->name, ops_.stream());
  }
  void finish() {
    while (!in_flight_.empty()) finish_one();
  }
  bool idle() const { return in_flight_.empty(); }

 private:
  TensorView whole_of(const Flat& flat, Spreading& bucket) {
    if (registered_.owned) return states_.find(state_name(flat, "parameter"))->second;
    const Buffer& buffer = bucket.buffers.emplace_back(pool_, flat.padded * size_of(flat.dtype),
                                                       Category::communication);
    const TensorView whole = buffer.view(flat.dtype, {flat.padded});
    copy_in(flat, registered_.values, communicator_.rank() * flat.shard,
            own_part(flat, whole, communicator_.rank()), ops_);
    return whole;
  }

  void finish_one() {
    Spreading& bucket = in_flight_.front();
    ops_.await(bucket.work);
    for (std::size_t i = 0; i < bucket.buffers.size(); ++i) {
      const Flat& flat = *bucket.flats[i];
      const TensorView whole = bucket.buffers[i].view(flat.dtype, {flat.padded});
      const std::int64_t first = communicator_.rank() * flat.shard, last = first + flat.shard;
      copy_out(flat, whole.flat_slice(0, first), 0, registered_.values, ops_);
      copy_out(flat, whole.flat_slice(last, flat.padded - last), last, registered_.values, ops_);
    }
    in_flight_.pop_front();
  }

  const Registered& registered_;
  const StateViews& states_;
  ElementOps& ops_;
  MemoryResource& pool_;
  Communicator& communicator_;
  std::deque<Spreading> in_flight_;
};

}  // namespace

void spread_parameters(const FlatLayout& layout, const Registered& registered,
                       const StateViews& states, ElementOps& ops, MemoryResource& pool,
                       Communicator& communicator, std::int64_t bucket_bytes,
                       std::vector<Transfer> along) {
  Spreader spreader(registered, states, ops, pool, communicator);
  std::vector<const Flat*> bucket;
  std::int64_t bytes = 0;
  for (const Flat& flat : layout.flats()) {
    if (!flat.trainable) continue;
    if (bytes >= bucket_bytes || bucket.size() == kMostFlats) {
      spreader.start(std::exchange(bucket, {}));
      bytes = 0;
    }
    bucket.push_back(&flat);
    bytes += flat.padded * size_of(flat.dtype);
  }
  std::optional<WaitsAtOnce> alone;
  if (!ops.on_device() && spreader.idle()) alone.emplace(communicator);
  spreader.start(std::move(bucket), std::move(along));
  spreader.finish();
}

ParameterImage::ParameterImage(const FlatLayout& layout, const Registered& registered,
                               const StateViews& states, Communicator& communicator, bool whole)
    : layout_(layout), registered_(registered), views_(states) {
  if (registered.owned) return;
  for (const Flat& flat : layout.flats()) {
    const std::int64_t elements = whole ? flat.padded : flat.shard;
    const Buffer& buffer =
        memory_.emplace_back(host_memory(), elements * size_of(flat.dtype), Category::parameter);
    const TensorView image = buffer.view(flat.dtype, {elements});
    copy_in(flat, registered.values, whole ? 0 : communicator.rank() * flat.shard, image);
    views_.emplace(state_name(flat, "parameter"), image);
  }
}

void ParameterImage::write_back() const {
  if (registered_.owned) return;
  for (const Flat& flat : layout_.flats())
    copy_out(flat, views_.find(state_name(flat, "parameter"))->second, 0, registered_.values);
}

}  // namespace ashlar
