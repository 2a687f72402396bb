#include "train_gpt/axis.hpp"

#include <cmath>

namespace train_gpt {
namespace {

double round_step(double least, int base) {
  const double power = std::pow(base, std::floor(std::log(least) / std::log(base)));
  if (base == 2) return power >= least ? power : 2 * power;
  for (const double factor : {1.0, 2.0, 5.0})
    if (factor * power >= least * (1 - 1e-9)) return factor * power;
  return 10 * power;
}

}  // namespace

std::vector<double> ticks(double low, double high, int count, int base) {
  if (!(high > low)) return {low};
  const double step = round_step((high - low) / count, base);
  std::vector<double> values;
  for (double i = std::ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; ++i)
    values.push_back(i * step);
  return values;
}

}  // namespace train_gpt
