// Shards a libtorch module (CPU): its parameters, gradients and optimizer states over the ranks of
// a communicator. Needs libtorch 1.13 or newer; link ashlar::torch.
#pragma once

#include <ATen/record_function.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/functions/accumulate_grad.h>
#include <torch/csrc/autograd/variable.h>
#include <torch/torch.h>

#include <algorithm>
#include <cctype>
#include <cstring>
#include <functional>
#include <iterator>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "ashlar/ashlar.hpp"

namespace ashlar::torch {

/// @throws InvalidArgument for a type that parameters cannot have.
inline DType dtype_of(const at::Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case at::kFloat:
      return DType::f32;
    case at::kBFloat16:
      return DType::bf16;
    case at::kHalf:
      return DType::f16;
    default:
      throw InvalidArgument("parameters are float, bfloat16 or half tensors");
  }
}

inline Shape shape_of(const at::Tensor& tensor) {
  const auto sizes = tensor.sizes();
  return Shape(std::span<const std::int64_t>(sizes.data(), sizes.size()));
}

/// The elements of a contiguous CPU tensor.
inline TensorView view_of(const at::Tensor& tensor) {
  if (!tensor.is_contiguous() || !tensor.device().is_cpu())
    throw InvalidArgument("parameters and gradients are contiguous tensors on the CPU");
  return {tensor.data_ptr(), dtype_of(tensor), shape_of(tensor)};
}

/// What is gathered together: the element of a list that a parameter lies in ("blocks.3" of
/// "blocks.3.mlp.weight"), else the module's direct child.
inline std::string unit_of(const std::string& name) {
  std::size_t begin = 0;
  while (true) {
    const std::size_t end = name.find('.', begin);
    if (end == std::string::npos) break;
    const bool number =
        end > begin && std::all_of(name.begin() + static_cast<std::ptrdiff_t>(begin),
                                   name.begin() + static_cast<std::ptrdiff_t>(end),
                                   [](unsigned char c) { return std::isdigit(c); });
    if (number) return name.substr(0, end);
    begin = end + 1;
  }
  return name.substr(0, name.find('.'));
}

/// A parameter of a module.
struct Named {
  std::string name;
  std::string unit;  // empty: grouped with its neighbours
  at::Tensor tensor;
  bool decay = true;  // weight decay applies
};

/// Whether weight decay applies to a parameter; unset: to all.
using DecayRule = std::function<bool(const std::string& name, const at::Tensor& parameter)>;

/// Each once, however many modules share it.
inline std::vector<Named> parameters_of(const ::torch::nn::Module& module,
                                        const DecayRule& decay = {}) {
  std::vector<Named> all;
  for (const auto& item : module.named_parameters()) {
    const auto same = [&](const Named& other) { return other.tensor.is_same(item.value()); };
    if (std::none_of(all.begin(), all.end(), same))
      all.push_back({item.key(), unit_of(item.key()), item.value(),
                     !decay || decay(item.key(), item.value())});
  }
  return all;
}

/// Stage 3: parameters have memory while an operator uses their unit. A unit is gathered when an
/// operator is about to read one of its storages, by whatever view, in forward and in backward, and
/// released when an operator reads other units.
class Residency {
 public:
  Residency(ShardedOptimizer& optimizer, const std::vector<Named>& parameters)
      : optimizer_(optimizer) {
    for (const Named& parameter : parameters) {
      owners_[parameter.tensor.storage().unsafeGetStorageImpl()] = parameter.unit;
      units_[parameter.unit].push_back(parameter);
      place(parameter, nullptr);
    }
    residents().push_back(this);
    callback_ = at::addThreadLocalCallback(
        at::RecordFunctionCallback(&Residency::before_operator)
            .needsInputs(true)
            .scopes({at::RecordScope::FUNCTION, at::RecordScope::BACKWARD_FUNCTION}));
  }
  ~Residency() {
    at::removeCallback(callback_);
    std::erase(residents(), this);
    release_all_but({});
  }
  Residency(const Residency&) = delete;
  Residency& operator=(const Residency&) = delete;

  void release() { release_all_but({}); }
  /// The unit stays, whatever operators read, until as many unpins.
  void pin(const std::string& unit) {
    if (!leases_.contains(unit)) acquire(unit);
    ++pins_[unit];
  }
  void unpin(const std::string& unit) {
    if (--pins_[unit] > 0) return;
    pins_.erase(unit);
    drop(leases_.find(unit));
  }

 private:
  using Units = std::set<std::string>;

  /// Those of this thread: a backward on the CPU runs on the thread that called it.
  static std::vector<Residency*>& residents() {
    thread_local std::vector<Residency*> all;
    return all;
  }

  static std::unique_ptr<at::ObserverContext> before_operator(const at::RecordFunction& function) {
    for (Residency* resident : residents()) {
      Units read;
      for (const c10::IValue& input : function.inputs()) {
        if (input.isTensor()) resident->find(input.toTensor(), read);
        if (!input.isTensorList()) continue;
        for (const at::Tensor& tensor : input.toTensorVector()) resident->find(tensor, read);
      }
      if (!read.empty()) resident->hold(read);
    }
    return nullptr;
  }

  void find(const at::Tensor& tensor, Units& read) const {
    if (!tensor.defined() || !tensor.has_storage()) return;
    const auto owner = owners_.find(tensor.storage().unsafeGetStorageImpl());
    if (owner != owners_.end()) read.insert(owner->second);
  }

  void hold(const Units& wanted) {
    release_all_but(wanted);
    for (const std::string& unit : wanted) {
      if (!leases_.contains(unit)) acquire(unit);
    }
  }
  void acquire(const std::string& unit) {
    const auto& lease = leases_.emplace(unit, optimizer_.gather(unit)).first->second;
    for (const Named& parameter : units_[unit]) place(parameter, lease[parameter.name].data);
  }
  void release_all_but(const Units& wanted) {
    for (auto lease = leases_.begin(); lease != leases_.end();) {
      const bool stays = wanted.contains(lease->first) || pins_.contains(lease->first);
      lease = stays ? std::next(lease) : drop(lease);
    }
  }
  using Leases = std::map<std::string, ShardedOptimizer::Lease>;
  Leases::iterator drop(Leases::iterator lease) {
    for (const Named& parameter : units_[lease->first]) place(parameter, nullptr);
    return leases_.erase(lease);
  }

  static void place(const Named& parameter, void* memory) {
    parameter.tensor.storage().unsafeGetStorageImpl()->set_data_ptr_noswap(
        at::DataPtr(memory, at::kCPU));
  }

  ShardedOptimizer& optimizer_;
  std::unordered_map<const c10::StorageImpl*, std::string> owners_;
  std::map<std::string, std::vector<Named>> units_;
  Leases leases_;
  std::map<std::string, int> pins_;
  at::CallbackHandle callback_{};
};

/// A module whose training is sharded. Gradients travel as backward completes them (hooks on their
/// accumulation); at stages 2 and 3 they are freed then. Buffers, as of batch norm, are left alone.
/// Backward runs on the thread that made it.
class Sharded {
 public:
  /// Takes over rank 0's parameters. Collective. @throws InvalidArgument as ShardedOptimizer does.
  Sharded(const ::torch::nn::Module& module, Communicator& world, const OptimizerConfig& optimizer,
          ShardedOptions options = {}, const DecayRule& decay = {})
      : Sharded(parameters_of(module, decay), world, optimizer, std::move(options)) {}

  Sharded(std::vector<Named> parameters, Communicator& world, const OptimizerConfig& optimizer,
          ShardedOptions options)
      : parameters_(std::move(parameters)), stage_(options.stage) {
    ::torch::NoGradGuard no_grad;
    if (stage_ == 3) {
      for (const Named& p : parameters_) world.broadcast(view_of(p.tensor), 0, p.name).wait();
      options.source = [this](const Parameter& parameter, std::int64_t first, TensorView values) {
        copy_values(parameter.name, first, values);
      };
    }
    optimizer_ = std::make_unique<ShardedOptimizer>(list(), world, optimizer, options);
    if (stage_ == 3) residency_ = std::make_unique<Residency>(*optimizer_, parameters_);
    for (const Named& parameter : parameters_)
      if (parameter.tensor.requires_grad()) add_hook(parameter);
  }
  ~Sharded() {
    for (const auto& [node, hook] : hooks_) hook->sharded = nullptr;
  }
  Sharded(const Sharded&) = delete;
  Sharded& operator=(const Sharded&) = delete;

  /// Reduces, updates, gathers; then the gradients are gone.
  UpdateResult step() {
    if (residency_) residency_->release();
    const UpdateResult result = optimizer_->step();
    zero_grad();
    return result;
  }
  void zero_grad() {
    for (const Named& parameter : parameters_) parameter.tensor.mutable_grad().reset();
  }
  /// Keeps the parameters of a unit in memory while it lives: for what reads them outside of
  /// operators. Outlives neither step() nor the Sharded.
  class [[nodiscard]] Lease {
   public:
    ~Lease() {
      if (residency_ != nullptr) residency_->unpin(unit_);
    }
    Lease(Lease&& other) noexcept
        : residency_(std::exchange(other.residency_, nullptr)), unit_(std::move(other.unit_)) {}
    Lease& operator=(Lease&&) = delete;

   private:
    friend class Sharded;
    Lease(Residency* residency, std::string unit) : residency_(residency), unit_(std::move(unit)) {
      if (residency_ != nullptr) residency_->pin(unit_);
    }
    Residency* residency_;  // null below stage 3, where parameters never leave
    std::string unit_;
  };
  /// Collective at stage 3. @throws InvalidArgument for an unknown unit.
  Lease gather(const std::string& unit) {
    if (!residency_) static_cast<void>(optimizer_->gather(unit));
    return {residency_.get(), unit};
  }
  /// Gradients of backward passes while it lives only accumulate.
  ShardedOptimizer::NoSync no_sync() { return optimizer_->no_sync(); }
  ShardedOptimizer& optimizer() { return *optimizer_; }

 private:
  struct Hook : ::torch::autograd::FunctionPostHook {
    Hook(Sharded& owner, Named named) : sharded(&owner), parameter(std::move(named)) {}
    ::torch::autograd::variable_list operator()(
        const ::torch::autograd::variable_list& outputs,
        const ::torch::autograd::variable_list& /*inputs*/) override {
      if (sharded != nullptr) sharded->accumulated(parameter);
      return outputs;
    }
    Sharded* sharded;
    Named parameter;
  };

  /// A shared or an intrusive pointer, as libtorch's version has it.
  using Node = decltype(::torch::autograd::impl::grad_accumulator(std::declval<at::Tensor>()));

  ParameterList list() const {
    ParameterList list;
    for (const Named& parameter : parameters_) {
      const ParameterOptions how{.unit = parameter.unit,
                                 .trainable = parameter.tensor.requires_grad(),
                                 .decay = parameter.decay};
      if (stage_ == 3)
        list.allocate(parameter.name, shape_of(parameter.tensor), dtype_of(parameter.tensor), how);
      else
        list.add(parameter.name, view_of(parameter.tensor), {}, how);
    }
    return list;
  }

  /// Part of a parameter as the module was made with it.
  void copy_values(const std::string& name, std::int64_t first, const TensorView& values) const {
    const auto found = std::find_if(parameters_.begin(), parameters_.end(),
                                    [&](const Named& p) { return p.name == name; });
    const at::Tensor part =
        found->tensor.flatten().slice(0, first, first + values.elements()).to(at::kFloat);
    std::memcpy(values.data, part.data_ptr(), static_cast<std::size_t>(values.bytes()));
  }

  void add_hook(const Named& parameter) {
    ::torch::AutoGradMode with_grad(true);
    auto node = ::torch::autograd::impl::grad_accumulator(parameter.tensor);
    auto hook = std::make_unique<Hook>(*this, parameter);
    hooks_.emplace_back(node, hook.get());
    node->add_post_hook(std::move(hook));
  }

  void accumulated(const Named& parameter) {
    if (!optimizer_->syncing()) return;
    const at::Tensor gradient = parameter.tensor.grad().contiguous();
    optimizer_->grad_ready(parameter.name, view_of(gradient));
    if (stage_ >= 2) parameter.tensor.mutable_grad().reset();
  }

  std::vector<Named> parameters_;
  int stage_;
  std::unique_ptr<ShardedOptimizer> optimizer_;
  std::unique_ptr<Residency> residency_;
  std::vector<std::pair<Node, Hook*>> hooks_;
};

/// @param model a module holder or a shared pointer to a module, which outlives the result
/// @param decay which parameters weight decay applies to; unset: all
template <typename Model>
Sharded shard(const Model& model, Communicator& world, const OptimizerConfig& optimizer,
              const ShardedOptions& options = {}, const DecayRule& decay = {}) {
  return Sharded(*model, world, optimizer, options, decay);
}

/// AdamW with its states sharded, for parameters alone: torch::optim::AdamW over the mean of the
/// ranks' gradients. step() reads this rank's where backward left them, with all that was done to
/// them since, and leaves them there.
class ZeroAdamW {
 public:
  /// Takes over rank 0's values. Collective. @param clip of the norm of the mean gradient; 0: off
  ZeroAdamW(const std::vector<at::Tensor>& parameters, Communicator& world, const AdamW& options,
            double clip = 0)
      : parameters_(parameters),
        optimizer_(list(parameters), world, options, {.stage = 1, .clip = clip}) {}

  /// Collective. A parameter without a gradient counts as zeros.
  UpdateResult step() {
    for (std::size_t i = 0; i < parameters_.size(); ++i) {
      if (!parameters_[i].grad().defined()) continue;
      const at::Tensor gradient = parameters_[i].grad().contiguous();
      optimizer_.grad_ready(std::to_string(i), view_of(gradient));
    }
    return optimizer_.step();
  }
  void zero_grad() {
    for (const at::Tensor& parameter : parameters_) parameter.mutable_grad().reset();
  }
  ShardedOptimizer& optimizer() { return optimizer_; }

 private:
  static ParameterList list(const std::vector<at::Tensor>& parameters) {
    ParameterList list;
    for (std::size_t i = 0; i < parameters.size(); ++i)
      list.add(std::to_string(i), view_of(parameters[i]), {},
               {.trainable = parameters[i].requires_grad()});
    return list;
  }

  std::vector<at::Tensor> parameters_;
  ShardedOptimizer optimizer_;
};

}  // namespace ashlar::torch
