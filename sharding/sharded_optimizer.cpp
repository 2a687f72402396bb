// The second front door; what stands behind it is in sharded_optimizer_implementation.hpp.
#include "ashlar/sharded_optimizer.hpp"

#include <algorithm>

#include "sharding/sharded_optimizer_implementation.hpp"

namespace ashlar {

ShardedOptimizer::ShardedOptimizer(const ParameterList& parameters, Communicator& communicator,
                                   const OptimizerConfig& optimizer, const ShardedOptions& options)
    : implementation_(
          std::make_unique<Implementation>(parameters, communicator, optimizer, options)) {}
ShardedOptimizer::~ShardedOptimizer() = default;
ShardedOptimizer::ShardedOptimizer(ShardedOptimizer&&) noexcept = default;

void ShardedOptimizer::grad_ready(std::string_view parameter) {
  Implementation& self = *implementation_;
  self.noting([&] {
    const int p = self.find_trainable(parameter);
    if (!self.accumulating) self.reducer.ready(p);
  });
}
void ShardedOptimizer::grad_ready(std::string_view parameter, const TensorView& gradient) {
  Implementation& self = *implementation_;
  self.noting([&] {
    const int p = self.find_trainable(parameter);
    if (!self.accumulating) self.reducer.ready(p, gradient);
  });
}
UpdateResult ShardedOptimizer::step() {
  return implementation_->noting([this] { return implementation_->step(); });
}
void ShardedOptimizer::zero_grad() { implementation_->reducer.clear(); }

ShardedOptimizer::NoSync::NoSync(Implementation& optimizer) : optimizer_(optimizer) {
  optimizer_.accumulating = true;
}
ShardedOptimizer::NoSync::~NoSync() {
  optimizer_.accumulating = false;
  ++optimizer_.micro_batches;
}
ShardedOptimizer::NoSync ShardedOptimizer::no_sync() { return NoSync(*implementation_); }
bool ShardedOptimizer::syncing() const { return !implementation_->accumulating; }

ShardedOptimizer::Lease::Lease(Lease&& other) noexcept
    : optimizer_(std::exchange(other.optimizer_, nullptr)), unit_(other.unit_) {}
ShardedOptimizer::Lease::~Lease() {
  if (optimizer_ != nullptr && optimizer_->options.stage == 3) optimizer_->gatherer.release(unit_);
}
TensorView ShardedOptimizer::Lease::operator[](std::string_view parameter) const {
  const int p = optimizer_->find(parameter);
  if (optimizer_->registered.parameters[static_cast<std::size_t>(p)].unit != unit_) {
    throw InvalidArgument(
        fmt::format("parameter '{}' does not belong to unit '{}'", parameter,
                    optimizer_->registered.units[static_cast<std::size_t>(unit_)]));
  }
  return optimizer_->values(p);
}
const std::string& ShardedOptimizer::Lease::unit() const {
  return optimizer_->registered.units[static_cast<std::size_t>(unit_)];
}
ShardedOptimizer::Lease ShardedOptimizer::gather(std::string_view unit) {
  const auto& units = implementation_->registered.units;
  const auto found = std::ranges::find(units, unit);
  if (found == units.end()) throw InvalidArgument(fmt::format("no unit is called '{}'", unit));
  const int u = static_cast<int>(found - units.begin());
  if (implementation_->options.stage == 3) implementation_->gatherer.acquire(u);
  return {*implementation_, u};
}

TensorView ShardedOptimizer::values(std::string_view parameter) const {
  Implementation& self = *implementation_;
  return self.noting([&] { return self.values(self.find(parameter)); });
}
TensorView ShardedOptimizer::gradient(std::string_view parameter) {
  Implementation& self = *implementation_;
  return self.noting([&] {
    const int p = self.find_trainable(parameter);
    if (self.registered.owned) return self.reducer.local(p);
    return self.registered.gradients[static_cast<std::size_t>(p)];
  });
}
void ShardedOptimizer::read(std::string_view parameter, const TensorView& values,
                            const ReadOptions& options) const {
  implementation_->read(implementation_->find(parameter), values, options);
}

double ShardedOptimizer::lr() const {
  const Implementation& self = *implementation_;
  return self.options.schedule ? self.options.schedule->rate(self.steps + 1) : self.rate;
}
void ShardedOptimizer::set_lr(double rate) {
  require_rate(rate);
  implementation_->rate = rate;
  if (implementation_->options.schedule) implementation_->options.schedule->lr = rate;
}
double ShardedOptimizer::grad_norm() const { return implementation_->last_norm; }
double ShardedOptimizer::loss_scale() const { return implementation_->scale; }
std::int64_t ShardedOptimizer::steps() const { return implementation_->steps; }
void ShardedOptimizer::save(const std::filesystem::path& directory,
                            std::string_view counters) const {
  implementation_->save(directory, counters);
}
std::string ShardedOptimizer::load(const std::filesystem::path& directory) {
  return implementation_->load(directory);
}
const FlatLayout& ShardedOptimizer::layout() const { return implementation_->layout; }
PerCategory<std::int64_t> ShardedOptimizer::state_bytes() const {
  const Implementation& self = *implementation_;
  return with_callers_memory(self.states.bytes(), self.layout, self.registered, self.options.stage);
}
PerCategory<std::int64_t> ShardedOptimizer::unsharded_bytes() const {
  const Implementation& self = *implementation_;
  return unsharded(self.layout, self.registered, self.update->states().size());
}
std::string ShardedOptimizer::summary() const {
  const Implementation& self = *implementation_;
  const auto has_memory = [](const TensorView& view) { return view.data != nullptr; };
  const bool stay =
      self.options.stage == 2 && std::ranges::any_of(self.registered.gradients, has_memory);
  return summarise(state_bytes(), unsharded_bytes(), stay);
}
SentBytes ShardedOptimizer::sent_bytes() const {
  const Implementation& self = *implementation_;
  SentBytes sent = self.communicator.sent_bytes();
  if (!self.own_reductions) return sent;
  const SentBytes more = self.own_reductions->sent_bytes();
  std::ranges::transform(sent, more, sent.begin(), std::plus<>());
  return sent;
}
std::int64_t ShardedOptimizer::transient_bytes() const {
  const Implementation& self = *implementation_;
  return self.buckets.cache.statistics().peak_live_bytes +
         (self.guard ? self.guard->peak_live_bytes()
                     : self.units.cache.statistics().peak_live_bytes);
}

}  // namespace ashlar
