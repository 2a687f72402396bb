// The fit of a calibration: Gauss-Newton on logarithms, with priors.
#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <set>

#include "simulate/calibration.hpp"

namespace ashlar::simulate {
namespace {

constexpr double kNoise = 0.02;       // of a measurement, relative
constexpr double kPriorWidth = 0.5;   // of a constant, in logarithms
constexpr double kDifference = 1e-2;  // of a constant, for derivatives

/// A constant that is fitted; the slowdown belongs to all devices.
struct Constant {
  std::vector<std::function<double&(Calibration&)>> places;
  double log_prior = 0;
  double most = 1e9;
};

using Vector = std::vector<double>;

double dot(const Vector& a, const Vector& b) {
  return std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
}

/// Solves a x = b for a symmetric positive definite matrix, by Cholesky.
Vector solve(std::vector<Vector> a, Vector b) {
  const std::size_t n = b.size();
  for (std::size_t j = 0; j < n; ++j) {
    for (std::size_t k = 0; k < j; ++k) a[j][j] -= a[j][k] * a[j][k];
    a[j][j] = std::sqrt(a[j][j]);
    for (std::size_t i = j + 1; i < n; ++i) {
      for (std::size_t k = 0; k < j; ++k) a[i][j] -= a[i][k] * a[j][k];
      a[i][j] /= a[j][j];
    }
  }
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t k = 0; k < i; ++k) b[i] -= a[i][k] * b[k];
    b[i] /= a[i][i];
  }
  for (std::size_t i = n; i-- > 0;) {
    for (std::size_t k = i + 1; k < n; ++k) b[i] -= a[k][i] * b[k];
    b[i] /= a[i][i];
  }
  return b;
}

class Fit {
 public:
  Fit(Calibration priors, const std::vector<Measurement>& runs,
      const std::vector<CompiledStep>& steps)
      : runs_(runs), steps_(steps), now_(std::move(priors)) {
    for (const Measurement& run : runs) measured_.insert(run.gpu);
    choose();
  }

  Calibration run() {
    Vector theta;
    for (const Constant& constant : constants_) theta.push_back(constant.log_prior);
    for (int iteration = 0; iteration < 12; ++iteration) step(theta);
    carry_over(theta);
    now_.rows.clear();
    for (const Measurement& run : runs_) now_.rows.push_back(run.row_id);
    return std::move(now_);
  }

 private:
  void choose() {
    add({[](Calibration& c) -> double& { return c.software.traffic_scale; }}, 1e9);
    std::vector<std::function<double&(Calibration&)>> slowdowns;
    for (const auto& entry : now_.clusters) {
      const std::string gpu = entry.first;
      slowdowns.emplace_back(
          [gpu](Calibration& c) -> double& { return c.clusters.at(gpu).overlap_slowdown; });
      if (!measured_.contains(gpu)) continue;
      const auto device = [gpu](double Device::*member) {
        return
            [gpu, member](Calibration& c) -> double& { return c.clusters.at(gpu).device.*member; };
      };
      add({device(&Device::product_efficiency)}, 1);
      add({device(&Device::attention_efficiency)}, 1);
    }
    add(std::move(slowdowns), 10);
  }

  void add(std::vector<std::function<double&(Calibration&)>> places, double most) {
    const double prior = std::max(1e-3, places.front()(now_));
    constants_.push_back({std::move(places), std::log(prior), most});
  }

  void set(const Vector& theta) {
    for (std::size_t i = 0; i < theta.size(); ++i) {
      for (const auto& place : constants_[i].places)
        place(now_) = std::min(std::exp(theta[i]), constants_[i].most);
    }
  }

  Vector residuals(const Vector& theta) {
    set(theta);
    Vector all;
    for (std::size_t r = 0; r < runs_.size(); ++r) {
      all.push_back(std::log(predicted_tokens_per_second(runs_[r], steps_[r], now_) /
                             runs_[r].tokens_per_second) /
                    kNoise);
    }
    for (std::size_t i = 0; i < theta.size(); ++i)
      all.push_back((theta[i] - constants_[i].log_prior) / kPriorWidth);
    return all;
  }

  void step(Vector& theta) {
    const std::size_t n = theta.size();
    const Vector here = residuals(theta);
    std::vector<Vector> slopes;
    for (std::size_t i = 0; i < n; ++i) {
      Vector moved = theta;
      moved[i] += kDifference;
      Vector slope = residuals(moved);
      for (std::size_t r = 0; r < slope.size(); ++r) slope[r] = (slope[r] - here[r]) / kDifference;
      slopes.push_back(std::move(slope));
    }
    std::vector<Vector> normal;
    Vector right;
    for (const Vector& a : slopes) {
      right.push_back(-dot(a, here));
      Vector& row = normal.emplace_back();
      for (const Vector& b : slopes) row.push_back(dot(a, b));
    }
    const Vector change = solve(std::move(normal), std::move(right));
    for (std::size_t i = 0; i < n; ++i) theta[i] += std::clamp(change[i], -0.3, 0.3);
    set(theta);
  }

  /// What the measured devices reach of their priors, for those that were not measured.
  void carry_over(const Vector& theta) {
    if (measured_.empty()) return;
    double product = 0, attention = 0;
    for (std::size_t d = 0; d < measured_.size(); ++d) {
      product += theta[1 + 2 * d] - constants_[1 + 2 * d].log_prior;
      attention += theta[2 + 2 * d] - constants_[2 + 2 * d].log_prior;
    }
    const auto devices = static_cast<double>(measured_.size());
    for (auto& [gpu, cluster] : now_.clusters) {
      if (measured_.contains(gpu)) continue;
      Device& device = cluster.device;
      device.product_efficiency =
          std::min(1.0, device.product_efficiency * std::exp(product / devices));
      device.attention_efficiency =
          std::min(1.0, device.attention_efficiency * std::exp(attention / devices));
    }
  }

  const std::vector<Measurement>& runs_;
  const std::vector<CompiledStep>& steps_;
  Calibration now_;
  std::set<std::string> measured_;
  std::vector<Constant> constants_;  // traffic, (product, attention) by measured device, slowdown
};

}  // namespace

Calibration fit(const Calibration& priors, const std::vector<Measurement>& runs,
                const std::vector<CompiledStep>& steps) {
  return Fit(priors, runs, steps).run();
}

}  // namespace ashlar::simulate
