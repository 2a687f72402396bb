#include "graph/reorder_run.hpp"

#include <algorithm>
#include <numeric>
#include <utility>

namespace ashlar {
namespace {

std::size_t index(std::int64_t i) { return static_cast<std::size_t>(i); }

/// Largest load, and the sum over all members.
using Loads = std::pair<std::int64_t, std::int64_t>;

class Search {
 public:
  explicit Search(const Run& run) : run_(run), order_(run.members.size()), left_(run.bytes.size()) {
    std::iota(order_.begin(), order_.end(), 0);
    best_ = loads();
  }

  std::vector<int> run() {
    while (improve()) {
    }
    return order_;
  }

 private:
  bool improve() {
    bool better = false;
    for (int member = 0; member < static_cast<int>(order_.size()); ++member) {
      const auto [first, last] = bounds(member);
      const int here = position(member);
      for (int to = first; to <= last; ++to) {
        if (to == here) continue;
        move(here, to);
        const Loads now = loads();
        if (now < best_) {
          best_ = now;
          better = true;
          break;
        }
        move(to, here);
      }
    }
    return better;
  }

  int position(int member) const {
    return static_cast<int>(std::ranges::find(order_, member) - order_.begin());
  }

  void move(int from, int to) {
    const auto begin = order_.begin();
    if (from < to) {
      std::rotate(begin + from, begin + from + 1, begin + to + 1);
    } else {
      std::rotate(begin + to, begin + from, begin + from + 1);
    }
  }

  /// Where a member may stand without passing what it needs or what needs it.
  std::pair<int, int> bounds(int member) const {
    const int here = position(member);
    int first = 0, last = static_cast<int>(order_.size()) - 1;
    for (int p = 0; p < static_cast<int>(order_.size()); ++p) {
      const int other = order_[index(p)];
      const auto& mine = run_.members[index(member)].after;
      const auto& theirs = run_.members[index(other)].after;
      if (p < here && std::ranges::find(mine, other) != mine.end()) first = std::max(first, p + 1);
      if (p > here && std::ranges::find(theirs, member) != theirs.end())
        last = std::min(last, p - 1);
    }
    return {first, last};
  }

  Loads loads() {
    std::ranges::fill(left_, 0);
    for (const Member& member : run_.members)
      for (const int buffer : member.reads) ++left_[index(buffer)];
    std::int64_t live = 0;
    Loads result{0, 0};
    for (const int m : order_) {
      const Member& member = run_.members[index(m)];
      std::int64_t now = live + member.scratch;
      for (const int buffer : member.makes) live += run_.bytes[index(buffer)];
      for (const int buffer : member.makes) now += run_.bytes[index(buffer)];
      for (const int buffer : member.reads) --left_[index(buffer)];
      for (const int buffer : member.may_reuse) {
        if (!dead(buffer) || member.makes.empty() ||
            run_.bytes[index(buffer)] != run_.bytes[index(member.makes[0])])
          continue;
        now -= run_.bytes[index(buffer)];
        break;
      }
      for (const auto* buffers : {&member.reads, &member.makes}) {
        for (const int buffer : *buffers)
          if (dead(buffer)) live -= run_.bytes[index(buffer)];
      }
      result = {std::max(result.first, now), result.second + now};
    }
    return result;
  }

  bool dead(int buffer) const { return left_[index(buffer)] == 0 && !run_.stays[index(buffer)]; }

  const Run& run_;
  std::vector<int> order_;  // members
  std::vector<int> left_;   // by buffer: reads to come
  Loads best_;
};

}  // namespace

std::vector<int> lower_order(const Run& run) { return Search(run).run(); }

}  // namespace ashlar
