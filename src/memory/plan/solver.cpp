#include "memory/plan/solver.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "memory/plan/cores.hpp"

namespace ashlar::plan {
namespace {

constexpr std::size_t kMostSearched = 8192;  // items: a search keeps which of them meet
constexpr int kOrders = 4, kAttempts = 2 * kOrders, kTargets = 16, kBlock = 32;
constexpr std::int64_t kMovesPerNode = 6;  // of annealing: what both cost is about the same

}  // namespace

Solver::Solver(std::span<const PlannedBuffer> buffers, const PlanOptions& options)
    : options_(options),
      problem_(canonical(buffers, options.alignment)),
      lower_bound_(problem_.load),
      capacity_(options.capacity / problem_.unit) {}

PlanResult Solver::run() {
  best_fit(
      problem_, [&](const std::vector<std::int64_t>& lower) { accept(lower); },
      [&](std::int64_t) { return report() && !enough(); });
  if (!done() && problem_.items.size() > kMostSearched) {
    fit_around_cores(
        problem_, height_, [&](const auto& core) { return plan_core(core); },
        [&](const std::vector<std::int64_t>& lower) { accept(lower); },
        [&](std::int64_t n) {
          searched_ += n;
          return report() && !done();
        });
  } else if (!done()) {
    load_of_ = largest_loads(problem_);
    Search search(problem_);
    Annealing annealing(problem_);
    for (int index = 0; !done(); ++index) {
      attempt(search, index);
      if (index % kBlock == kBlock - 1) anneal(annealing);
    }
  }
  return {std::move(best_), lower_bound_ * problem_.unit, nodes()};
}

std::vector<std::int64_t> Solver::plan_core(const std::vector<PlannedBuffer>& core) {
  constexpr std::int64_t kNodesPerBuffer = 20;
  const std::int64_t before = searched_;
  PlanOptions options;
  options.alignment = 1;
  options.node_limit = std::min(options_.node_limit - nodes(),
                                kNodesPerBuffer * static_cast<std::int64_t>(core.size()));
  options.progress = [&](const PlanProgress& progress) {
    searched_ = before + progress.nodes;
    return report();
  };
  const PlanResult result = Solver(core, options).run();
  searched_ = before + result.nodes;
  return result.plan.offsets;
}

bool Solver::done() const {
  return stopped_ || height_ <= lower_bound_ || nodes() >= options_.node_limit || enough();
}

/// The capacity is met, or cannot be.
bool Solver::enough() const {
  return options_.capacity > 0 && (height_ <= capacity_ || lower_bound_ > capacity_);
}

void Solver::accept(const std::vector<std::int64_t>& offsets) {
  offsets_ = offsets;
  best_ = to_plan(problem_, offsets);
  height_ = height_of(problem_, offsets);
  report();
}

std::int64_t Solver::nodes() const { return searched_ + moves_ / kMovesPerNode; }

bool Solver::report() {
  if (!stopped_ && options_.progress)
    stopped_ = !options_.progress({best_, lower_bound_ * problem_.unit, nodes()});
  return !stopped_;
}

/// Blocks of attempts in turn: equal steps from the lower bound up to just below the lowest plan;
/// that bound alone, as conflicts learned there help there. Near the bound most go for it, but for
/// the first block.
std::int64_t Solver::target(int attempt) const {
  if (capacity_ > problem_.load) return capacity_;
  const std::int64_t span = height_ - 1 - lower_bound_;
  const bool proof = attempt / kBlock % 2 == 1;
  const bool mostly_proof = attempt >= kBlock && near_bound();
  if (proof || (mostly_proof && attempt % 4 != 3)) return lower_bound_;
  return lower_bound_ + span * (attempt % kTargets + 1) / kTargets;
}

/// Hardly any room is left below the lowest plan.
bool Solver::near_bound() const { return height_ - lower_bound_ <= lower_bound_ / 100; }

/// Half of all nodes where the lowest plan has room below it. Not for a capacity above the load,
/// which searches reach sooner.
void Solver::anneal(Annealing& annealing) {
  if (done() || capacity_ > problem_.load) return;
  const std::int64_t due = (near_bound() ? 1 : kMovesPerNode) * searched_ - moves_;
  const std::int64_t left = options_.node_limit - nodes();
  if (due <= 0) return;
  const std::int64_t before = moves_;
  annealing.run(
      offsets_, lower_bound_, left < due / kMovesPerNode ? left * kMovesPerNode : due,
      [&](const std::vector<std::int64_t>& lower) { accept(lower); },
      [&](std::int64_t n) {
        moves_ += n;
        return report() && !done();
      });
  moves_ = before + annealing.moves();
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
  const std::int64_t before = searched_;
  const Outcome outcome = search.run(
      capacity, rule, ranks, std::min(limit, options_.node_limit - nodes()), [&](std::int64_t n) {
        searched_ += n;
        return report();
      });
  searched_ = before + search.nodes();
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
