#include "memory/plan/annealing.hpp"

#include <algorithm>
#include <bit>
#include <limits>
#include <numeric>

namespace ashlar::plan {

Annealing::Annealing(const Problem& problem)
    : problem_(problem),
      stride_(std::max(16, static_cast<int>(problem.items.size() / 64))),
      order_(problem.items.size()),
      position_(problem.items.size()),
      kept_(problem.items.size() / static_cast<std::size_t>(stride_) + 1),
      height_(std::numeric_limits<std::int64_t>::max()) {
  for (Skyline& skyline : kept_) skyline.tops.resize(static_cast<std::size_t>(problem.sections));
  tried_ = kept_;
  now_ = end_ = kept_.front();
  constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();
  std::int64_t total = 0;
  for (const Item& i : problem.items) total += i.size;
  summable_ = total <= kMost / std::max(problem.sections, 1);
}

void Annealing::run(std::span<const std::int64_t> lowest, std::int64_t bound, std::int64_t moves,
                    const std::function<void(const std::vector<std::int64_t>&)>& found,
                    const std::function<bool(std::int64_t)>& go_on) {
  constexpr double kHot = 0.01, kCold = 0.001;  // x load
  constexpr std::int64_t kReportEvery = 16;
  moves_ = 0;
  if (!summable_) return;
  if (const std::int64_t height = height_of(problem_, lowest); height < height_)
    start_from(lowest, height);
  aim(bound);
  for (; moves_ < moves && height_ > bound; ++moves_) {
    if (moves_ % kReportEvery == kReportEvery - 1 && !go_on(kReportEvery)) return;
    const double past = static_cast<double>(moves_) / static_cast<double>(moves);
    const double temperature =
        static_cast<double>(problem_.load) * kHot / (1 + (kHot / kCold - 1) * past);
    const auto most = end_.excess + static_cast<std::int64_t>(temperature * exponential());
    Move move{};
    if (!draw(move)) continue;
    apply(move);
    const int first = std::min(move.from, move.to);
    if (!stack(first, most)) {
      apply(move.reversed());
      continue;
    }
    keep(first);
    if (const std::int64_t top = std::ranges::max(end_.tops); top < height_) {
      height_ = top;
      found(offsets());
      aim(bound);
    }
  }
}

void Annealing::start_from(std::span<const std::int64_t> offsets, std::int64_t height) {
  height_ = height;
  std::iota(order_.begin(), order_.end(), 0);
  std::ranges::stable_sort(order_, {},
                           [&](int id) { return offsets[static_cast<std::size_t>(id)]; });
  for (int p = 0; p < count(); ++p)
    position_[static_cast<std::size_t>(order_[static_cast<std::size_t>(p)])] = p;
}

/// Well below the lowest: with one section in excess alone there would be no direction to follow.
void Annealing::aim(std::int64_t bound) {
  target_ = height_ - 1 - (height_ - 1 - bound) / 5;
  stack(0, std::numeric_limits<std::int64_t>::max());
  keep(0);
}

/// An item, half of the time one under an excess, to where one is that it meets.
bool Annealing::draw(Move& move) {
  constexpr int kTries = 1000;
  const int id = draw_item();
  for (int tries = 0; tries < kTries; ++tries) {
    const int other = below(count());
    if (other == id || !item(id).meets(item(other))) continue;
    move = {position_[static_cast<std::size_t>(id)], position_[static_cast<std::size_t>(other)],
            uniform() < 0.5};
    return true;
  }
  return false;
}

int Annealing::draw_item() {
  constexpr int kTries = 50;
  int id = below(count());
  if (uniform() < 0.5) return id;
  const auto exceeds = [&](std::int64_t top) { return top > target_; };
  for (int tries = 0; tries < kTries; ++tries, id = below(count()))
    if (std::any_of(end_.tops.begin() + item(id).first, end_.tops.begin() + item(id).last, exceeds))
      break;
  return id;
}

void Annealing::apply(const Move& move) {
  const auto from = order_.begin() + move.from, to = order_.begin() + move.to;
  if (move.swaps) {
    std::iter_swap(from, to);
    position_[static_cast<std::size_t>(*from)] = move.from;
    position_[static_cast<std::size_t>(*to)] = move.to;
    return;
  }
  if (from < to) {
    std::rotate(from, from + 1, to + 1);
  } else {
    std::rotate(to, from, from + 1);
  }
  for (int p = std::min(move.from, move.to); p <= std::max(move.from, move.to); ++p)
    position_[static_cast<std::size_t>(order_[static_cast<std::size_t>(p)])] = p;
}

/// The skyline after the whole order, from the stored one before position `first` on.
/// @return false: the excess is larger than `most`
bool Annealing::stack(int first, std::int64_t most) {
  last_tried_ = static_cast<std::size_t>(first / stride_);
  now_ = kept_[last_tried_];
  const int begin = first / stride_ * stride_;
  for (int p = begin; p < count(); ++p) {
    if (p > begin && p % stride_ == 0) tried_[++last_tried_] = now_;
    put(item(order_[static_cast<std::size_t>(p)]));
    if (now_.excess > most) return false;
  }
  return true;
}

/// On top of what lies in its sections.
void Annealing::put(const Item& placed) {
  const auto begin = now_.tops.begin() + placed.first, end = now_.tops.begin() + placed.last;
  std::int64_t top = 0;
  for (auto t = begin; t != end; ++t) top = std::max(top, *t);
  top += placed.size;
  if (top > target_)
    for (auto t = begin; t != end; ++t) now_.excess += top - std::max(*t, target_);
  std::fill(begin, end, top);
}

/// What was stacked last becomes the order's.
void Annealing::keep(int first) {
  for (auto r = static_cast<std::size_t>(first / stride_) + 1; r <= last_tried_; ++r)
    std::swap(kept_[r], tried_[r]);
  end_ = now_;
}

std::vector<std::int64_t> Annealing::offsets() const {
  std::vector<std::int64_t> offsets(problem_.items.size());
  std::vector<std::int64_t> tops(end_.tops.size());
  for (const int id : order_) {
    const auto begin = tops.begin() + item(id).first, end = tops.begin() + item(id).last;
    const std::int64_t offset = *std::max_element(begin, end);
    offsets[static_cast<std::size_t>(id)] = offset;
    std::fill(begin, end, offset + item(id).size);
  }
  return offsets;
}

/// Nearly -ln(uniform), with no function that differs from machine to machine.
double Annealing::exponential() {
  constexpr double kLn2 = 0.6931471805599453;
  const std::uint64_t bits = random_();
  return kLn2 * (std::countl_zero(bits) + 1 - uniform());
}

}  // namespace ashlar::plan
