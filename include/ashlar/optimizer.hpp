// Update rules on flat spans: they know neither ranks nor graphs. One pass over memory per step.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "ashlar/dtype.hpp"
#include "ashlar/tensor_view.hpp"

namespace ashlar {

/// Decoupled weight decay Adam (Loshchilov and Hutter, arXiv:1711.05101, algorithm 2; bias
/// correction as in Adam, arXiv:1412.6980, section 2):  m = b1 m + (1-b1) g;  v = b2 v + (1-b2)
/// g^2; p -= lr * decay * p;  p -= lr * (m / (1-b1^t)) / (sqrt(v / (1-b2^t)) + epsilon).
struct AdamW {
  double lr = 3e-4;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0.01;
  double ema = 0;  // decay of an average of the weights, kept as state "ema"; 0: none
};

/// Stochastic gradient descent with (Nesterov) momentum: u = momentum u + (g + decay p);  p -= lr
/// u.
struct Sgd {
  double lr = 1e-2;
  double momentum = 0.9;
  double weight_decay = 0;
  bool nesterov = false;
  double ema = 0;  // as for AdamW
};

using OptimizerConfig = std::variant<AdamW, Sgd>;

/// A run of elements of a span that share their group: [begin, end) in elements of the span.
struct Segment {
  std::int64_t begin = 0;
  std::int64_t end = 0;
  bool decay = true;
};

/// What changes per step; plain numbers so that a compiled step reads them at run time.
struct StepScalars {
  double learning_rate = 0;
  std::int64_t step = 1;      // 1 for the first update
  double gradient_scale = 1;  // gradients are multiplied by this first (clipping, loss scale)
};

/// An update rule. Stateless: its per-element states (all f32, as long as the span) belong to the
/// caller.
class Optimizer {
 public:
  virtual ~Optimizer() = default;
  virtual std::string_view name() const = 0;
  /// Names of the f32 states kept per element, in order: {"m", "v"} for AdamW, {"momentum"} for SGD
  /// (none at momentum 0); then "ema" where an average is kept.
  virtual std::span<const std::string_view> states() const = 0;
  /// One step over a flat span. Element-wise: the result of an element does not depend on where it
  /// lies in the span.
  /// @param master f32 [n], read and written: the parameters themselves in fp32 training, else the
  /// master weights
  /// @param parameter bf16/f16 [n] written with the rounded master, or an empty view (data ==
  /// nullptr) in fp32 training
  /// @param gradient f32, bf16 or f16 [n]
  /// @param state one f32 [n] view per entry of states()
  /// @param segments cover [0, n) in order
  /// @throws InvalidArgument naming the operand of another length or type.
  virtual void step(TensorView master, TensorView parameter, TensorView gradient,
                    std::span<const TensorView> state, std::span<const Segment> segments,
                    const StepScalars& scalars) const = 0;
};

/// @throws InvalidArgument naming the setting that is out of its range.
std::unique_ptr<Optimizer> make_optimizer(const OptimizerConfig& config);
/// What its states() would say, without the rule.
std::vector<std::string> states_of(const OptimizerConfig& config);

/// Learning rate over steps: linear warm-up over `warmup` steps, then constant or a cosine down to
/// lr x `floor` at the last step (Loshchilov and Hutter, arXiv:1608.03983, equation 5, one period).
struct Schedule {
  enum class Kind : std::uint8_t { constant, cosine };
  Kind kind = Kind::constant;
  double lr = 3e-4;
  std::int64_t warmup = 0;
  std::int64_t steps = 0;  // total; cosine only
  double floor = 0.1;

  /// The rate of step t = 1, 2, ...: lr t / warmup while t <= warmup.
  double rate(std::int64_t step) const;
};

}  // namespace ashlar
