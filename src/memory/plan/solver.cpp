#include "memory/plan/solver.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "memory/plan/best_fit.hpp"

namespace ashlar::plan {
namespace {

constexpr std::size_t kMostSearched = 8192;  // items: a search keeps which of them meet
constexpr int kOrders = 4, kAttempts = 2 * kOrders, kTargets = 16, kBlock = 64;

std::vector<std::int64_t> loads(const Problem& problem) {
  std::vector<std::int64_t> load(static_cast<std::size_t>(problem.sections));
  for (const Item& item : problem.items)
    for (int s = item.first; s < item.last; ++s) load[static_cast<std::size_t>(s)] += item.size;
  std::vector<std::int64_t> largest;
  for (const Item& item : problem.items)
    largest.push_back(*std::max_element(load.begin() + item.first, load.begin() + item.last));
  return largest;
}

}  // namespace

Solver::Solver(std::span<const PlannedBuffer> buffers, const PlanOptions& options)
    : options_(options),
      problem_(canonical(buffers, options.alignment)),
      lower_bound_(problem_.load),
      capacity_(options.capacity / problem_.unit) {}

PlanResult Solver::run() {
  accept(best_fit(problem_));
  if (!done() && problem_.items.size() <= kMostSearched) {
    load_of_ = loads(problem_);
    Search search(problem_);
    for (int index = 0; !done(); ++index) attempt(search, index);
  }
  return {std::move(best_), lower_bound_ * problem_.unit, nodes_};
}

bool Solver::done() const {
  if (stopped_ || height_ <= lower_bound_ || nodes_ >= options_.node_limit) return true;
  return options_.capacity > 0 && (height_ <= capacity_ || lower_bound_ > capacity_);
}

void Solver::accept(const std::vector<std::int64_t>& offsets) {
  best_ = to_plan(problem_, offsets);
  height_ = height_of(problem_, offsets);
  report(0);
}

bool Solver::report(std::int64_t nodes) {
  nodes_ += nodes;
  if (options_.progress && !options_.progress({best_, lower_bound_ * problem_.unit, nodes_}))
    stopped_ = true;
  return !stopped_;
}

/// Blocks of attempts in turn: equal steps from the lower bound up to just below the lowest plan;
/// that bound alone, as conflicts learned there help there. Failing that, just below the lowest.
std::int64_t Solver::target(int attempt) const {
  if (options_.capacity > 0) return capacity_;
  const int block = attempt / kBlock % 3;
  if (block == 1) return lower_bound_;
  if (block == 2) return height_ - 1;
  const std::int64_t span = height_ - 1 - lower_bound_;
  return lower_bound_ + span * (attempt % kTargets + 1) / kTargets;
}

void Solver::attempt(Search& search, int index) {
  constexpr double kFirstLimit = 3, kGrowth = 1.1, kNoise = 0.05;
  const int round = index / (4 * kAttempts);
  const auto limit = static_cast<std::int64_t>(
      kFirstLimit * std::pow(kGrowth, round) * static_cast<double>(problem_.items.size()) + 1);
  const Rule rule = index % 2 == 0 ? Rule::tightest : Rule::lowest;
  const std::vector<int> ranks =
      rank(index / 2 % kOrders, round == 0 ? 0 : kNoise * (1 + round % 6));
  const std::int64_t capacity = target(index);
  std::int64_t counted = 0;
  const Outcome outcome = search.run(
      capacity, rule, ranks, std::min(limit, options_.node_limit - nodes_), [&](std::int64_t n) {
        counted += n;
        return report(n);
      });
  nodes_ += search.nodes() - counted;
  if (outcome == Outcome::found) accept(search.offsets());
  if (outcome == Outcome::exhausted) lower_bound_ = std::max(lower_bound_, capacity + 1);
}

/// By load, lifetime and area in several orders, the positions shaken by `noise`.
std::vector<int> Solver::rank(int order, double noise) {
  const auto key = [&](std::size_t i) {
    const Item& item = problem_.items[i];
    const std::int64_t width = item.width(), area = width * item.size, load = load_of_[i];
    switch (order) {
      case 0:
        return std::array{width, area, load};
      case 1:
        return std::array{load, area, width};
      case 2:
        return std::array{load, width, area};
      default:
        return std::array{area, width, load};
    }
  };
  std::vector<std::size_t> sorted(problem_.items.size());
  std::iota(sorted.begin(), sorted.end(), 0);
  std::stable_sort(sorted.begin(), sorted.end(),
                   [&](std::size_t a, std::size_t b) { return key(a) > key(b); });
  const auto uniform = [&] { return static_cast<double>(random_() >> 11) * 0x1p-53; };
  std::vector<double> position(sorted.size());
  for (std::size_t p = 0; p < sorted.size(); ++p) {
    const double bell = uniform() + uniform() + uniform() + uniform() - 2;  // variance 1/3
    position[sorted[p]] =
        static_cast<double>(p) / static_cast<double>(sorted.size()) + noise * std::sqrt(3.0) * bell;
  }
  std::stable_sort(sorted.begin(), sorted.end(),
                   [&](std::size_t a, std::size_t b) { return position[a] < position[b]; });
  std::vector<int> ranks(sorted.size());
  for (std::size_t p = 0; p < sorted.size(); ++p) ranks[sorted[p]] = static_cast<int>(p);
  return ranks;
}

}  // namespace ashlar::plan
