// An Eigen model: regression by a small network of matrices, its parameters, gradients
// and Adam states sharded over the ranks (stage 3). Eigen maps the memory that a lease gives.
#include <Eigen/Dense>
#include <ashlar/ashlar.hpp>
#include <cmath>
#include <cstdio>

namespace {

constexpr int kInputs = 16, kHidden = 256, kBatch = 64;

using Matrix = Eigen::MatrixXf;
using Mapped = Eigen::Map<Matrix>;

/// A parameter, or its gradient, as Eigen sees it: columns first.
Mapped map(const ashlar::TensorView& view) {
  return {view.as<float>(), view.shape[1], view.shape[0]};
}

/// Points and what is to be learnt of them.
void load(unsigned batch, Matrix& x, Matrix& y) {
  std::srand(batch + 1);
  x = Matrix::Random(kInputs, kBatch);
  y = x.topRows(4).colwise().sum().array().sin();
}

class Network {
 public:
  explicit Network(ashlar::Communicator& world)
      : optimizer_(parameters(), world, ashlar::AdamW{.lr = 3e-3, .weight_decay = 0},
                   {.stage = 3}) {}

  /// One step on this rank's points. @return the mean squared error before it.
  float train(const Matrix& x, const Matrix& y) {
    Matrix hidden, error;
    {
      const auto lease = optimizer_.gather("up");
      hidden = (map(lease["up"]) * x).array().tanh();
    }
    Matrix back;
    {
      const auto lease = optimizer_.gather("down");
      const Mapped down = map(lease["down"]);
      error = down * hidden - y;
      const Matrix scaled = error * (2.0F / kBatch);
      map(optimizer_.gradient("down")) += scaled * hidden.transpose();
      back = (down.transpose() * scaled).array() * (1 - hidden.array().square());
      optimizer_.grad_ready("down");
    }
    map(optimizer_.gradient("up")) += back * x.transpose();
    optimizer_.step();
    return error.squaredNorm() / kBatch;
  }
  std::string summary() const { return optimizer_.summary(); }

 private:
  static ashlar::ParameterList parameters() {
    using ashlar::Initializer;
    ashlar::ParameterList list;  // Eigen's rows are the last axis
    list.allocate("up", {kInputs, kHidden}, ashlar::DType::f32,
                  {.unit = "up", .initial = {Initializer::Kind::normal, 0.5}});
    list.allocate("down", {kHidden, 1}, ashlar::DType::f32,
                  {.unit = "down", .initial = {Initializer::Kind::normal, 0.1}});
    return list;
  }

  ashlar::ShardedOptimizer optimizer_;
};

}  // namespace

int main() {
  ashlar::Communicator& world = ashlar::world();
  Network network(world);
  Matrix x, y;
  float mean = 0;
  for (int step = 0; step < 1500; ++step) {
    load(static_cast<unsigned>(step * world.size() + world.rank()), x, y);
    mean += (network.train(x, y) - mean) / 50;
  }
  if (world.rank() == 0)
    std::printf("squared error %.4f, %s\n", static_cast<double>(mean), network.summary().c_str());
  return mean < 0.05F ? 0 : 1;
}
