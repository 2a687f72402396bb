// Running a function now and its backward later: one graph with a pause between the two. Every
// value has memory of its own, given back at its last use; what backward needs lives through the
// pause.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "ashlar/autodiff.hpp"
#include "ashlar/buffer.hpp"
#include "ashlar/op.hpp"

namespace ashlar {

/// A view and a share in the memory that it lies in. Tensors may share memory: read only. Without
/// memory it is borrowed: the caller keeps it alive as long as what was computed from it.
struct Tensor {
  TensorView view = {};
  std::shared_ptr<const Buffer> memory = nullptr;
  explicit operator bool() const { return view.data != nullptr; }
};

/// Uninitialised.
Tensor make_tensor(const TensorType& type, MemoryResource& memory = host_memory(),
                   Category category = Category::input);

/// Kinds of pullbacks.
struct once {};        // runs once and consumes: each buffer dies at its last use in backward
struct repeatable {};  // runs any number of times: forward's buffers stay until it goes

class PausedRun;

/// Backward, when forward has run. Takes a cotangent per output (an empty Tensor is zero), gives a
/// gradient per input (empty where the input has no floating-point type). Cotangents that are moved
/// in also die at their last use. A throw in backward leaks nothing.
template <typename Kind = once>
class Pullback;

template <>
class Pullback<once> {
 public:
  explicit Pullback(std::shared_ptr<PausedRun> run) : run_(std::move(run)) {}
  Pullback(Pullback&&) = default;
  Pullback& operator=(Pullback&&) = default;

  /// `std::move(pullback)(cotangents)`. @throws InvalidArgument when it has run already, and on
  /// cotangents of other types.
  std::vector<Tensor> operator()(std::vector<Tensor> cotangents) &&;
  std::vector<Tensor> operator()(std::vector<Tensor> cotangents) & = delete;

 private:
  std::shared_ptr<PausedRun> run_;
};

/// Copies share forward's buffers. Calls from several threads are safe.
template <>
class Pullback<repeatable> {
 public:
  explicit Pullback(std::shared_ptr<PausedRun> run) : run_(std::move(run)) {}

  std::vector<Tensor> operator()(std::vector<Tensor> cotangents) const;
  /// K lists of cotangents in one sweep over backward's nodes; what depends on no cotangent runs
  /// once. @return K lists of gradients, with the bits of K calls.
  std::vector<std::vector<Tensor>> batched(std::vector<std::vector<Tensor>> cotangents) const;

 private:
  std::shared_ptr<const PausedRun> run_;
};

struct RunOptions {
  RunContext context = {};
  MemoryResource* memory = &host_memory();  // outlives what was computed
};

/// A function for inputs of given types, traced and differentiated once, run many times. Runs of
/// one object from several threads are safe.
class ForwardBackward {
 public:
  /// @throws InvalidArgument when f declares inputs of its own or is not differentiable.
  ForwardBackward(const Function& f, std::span<const TensorType> inputs, Backend backend = {});

  template <typename Kind = once>
  struct Result {
    std::vector<Tensor> outputs;
    Pullback<Kind> pullback;
  };
  /// Runs forward. Outputs may share memory with inputs and with what backward reads.
  /// @throws InvalidArgument unless the inputs are contiguous and of the types given before.
  template <typename Kind = once>
  Result<Kind> run(std::vector<Tensor> inputs, const RunOptions& options = {}) const {
    auto [outputs, paused] = forward(std::move(inputs), options);
    return {std::move(outputs), Pullback<Kind>(std::move(paused))};
  }

  /// What lives through the pause.
  std::vector<Residual> residuals() const;

  struct Program;

 private:
  std::pair<std::vector<Tensor>, std::shared_ptr<PausedRun>> forward(std::vector<Tensor> inputs,
                                                                     const RunOptions&) const;
  std::shared_ptr<const Program> program_;
};

}  // namespace ashlar
