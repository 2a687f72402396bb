#include "memory/plan/best_fit.hpp"

#include <algorithm>
#include <limits>
#include <map>
#include <numeric>
#include <queue>

namespace ashlar::plan {
namespace {

using Gaps = std::map<std::int64_t, std::int64_t>;  // size by begin; the last has no end

std::int64_t take_smallest_gap(Gaps& gaps, std::int64_t size) {
  auto best = gaps.end();
  for (auto gap = gaps.begin(); gap != gaps.end(); ++gap)
    if (gap->second >= size && (best == gaps.end() || gap->second < best->second)) best = gap;
  const auto [begin, room] = *best;
  gaps.erase(best);
  if (room > size) gaps.emplace(begin + size, room - size);
  return begin;
}

void free_gap(Gaps& gaps, std::int64_t begin, std::int64_t size) {
  auto next = gaps.lower_bound(begin);
  if (next != gaps.end() && next->first == begin + size) {
    size += next->second;
    next = gaps.erase(next);
  }
  if (next != gaps.begin()) {
    const auto previous = std::prev(next);
    if (previous->first + previous->second == begin) {
      previous->second += size;
      return;
    }
  }
  gaps.emplace_hint(next, begin, size);
}

}  // namespace

Packing::Packing(std::span<const Item> items, int sections)
    : items_(items), offsets_(items.size(), -1) {
  constexpr int kNarrowest = 16;
  int stride = std::max(sections, 1);
  do {
    const int windows = (sections + stride - 1) / stride;
    layers_.push_back({stride, {}});
    layers_.back().windows.resize(static_cast<std::size_t>(std::max(windows, 1)));
    stride = (stride + 3) / 4;
  } while (stride >= kNarrowest && items.size() > 256);
}

std::int64_t Packing::best_offset(std::size_t id) const {
  const Item& item = items_[id];
  auto layer = layers_.rbegin();
  while (layer + 1 != layers_.rend() &&
         item.last > (item.first / layer->stride + 2) * layer->stride)
    ++layer;
  std::int64_t top = 0, best = -1, best_gap = 0;
  for (const std::uint32_t other :
       layer->windows[static_cast<std::size_t>(item.first / layer->stride)]) {
    if (!item.meets(items_[other])) continue;
    const std::int64_t gap = offsets_[other] - top;
    if (gap >= item.size && (best < 0 || gap < best_gap)) {
      best = top;
      best_gap = gap;
    }
    top = std::max(top, offsets_[other] + items_[other].size);
  }
  return best < 0 ? top : best;
}

void Packing::place(std::size_t id, std::int64_t offset) {
  const Item& item = items_[id];
  offsets_[id] = offset;
  height_ = std::max(height_, offset + item.size);
  const auto by_offset = [&](std::uint32_t a, std::uint32_t b) {
    return offsets_[a] < offsets_[b];
  };
  for (Layer& layer : layers_) {
    const int last =
        std::min((item.last - 1) / layer.stride, static_cast<int>(layer.windows.size()) - 1);
    for (int w = std::max(item.first / layer.stride - 1, 0); w <= last; ++w) {
      auto& window = layer.windows[static_cast<std::size_t>(w)];
      const auto key = static_cast<std::uint32_t>(id);
      window.insert(std::upper_bound(window.begin(), window.end(), key, by_offset), key);
    }
  }
}

bool Packing::place_all(std::span<const std::size_t> ids,
                        const std::function<bool(std::int64_t)>& go_on) {
  constexpr std::int64_t kPatience = 64;
  std::int64_t since = 0;
  for (const std::size_t id : ids) {
    if (++since == kPatience) {
      if (!go_on(kPatience)) return false;
      since = 0;
    }
    place(id, best_offset(id));
  }
  return true;
}

std::vector<std::int64_t> in_order_of_time(const Problem& problem) {
  std::vector<std::int64_t> offsets(problem.items.size());
  Gaps gaps{{0, std::numeric_limits<std::int64_t>::max()}};
  std::priority_queue<std::pair<int, std::size_t>, std::vector<std::pair<int, std::size_t>>,
                      std::greater<>>
      ends;
  for (std::size_t id = 0; id < problem.items.size(); ++id) {
    const Item& item = problem.items[id];
    for (; !ends.empty() && ends.top().first <= item.first; ends.pop()) {
      const std::size_t dead = ends.top().second;
      free_gap(gaps, offsets[dead], problem.items[dead].size);
    }
    offsets[id] = take_smallest_gap(gaps, item.size);
    ends.emplace(item.last, id);
  }
  return offsets;
}

std::vector<std::int64_t> best_fit(const Problem& problem, const Incumbent& accept,
                                   const std::function<bool(std::int64_t)>& go_on) {
  const std::vector<Item>& items = problem.items;
  std::vector<std::size_t> order(items.size());
  std::iota(order.begin(), order.end(), 0);
  std::vector<std::int64_t> best = in_order_of_time(problem);
  std::int64_t height = height_of(problem, best);
  accept(best);
  const auto attempt = [&](auto key) {
    if (height == problem.load || !go_on(0)) return;
    std::stable_sort(order.begin(), order.end(),
                     [&](std::size_t x, std::size_t y) { return key(items[x]) > key(items[y]); });
    Packing packing(items, problem.sections);
    if (!packing.place_all(order, go_on)) return;
    if (packing.height() >= height) return;
    best = packing.offsets();
    height = packing.height();
    accept(best);
  };
  attempt([](const Item& i) { return i.size; });
  attempt([](const Item& i) { return static_cast<double>(i.size) * i.width(); });
  attempt([](const Item& i) { return i.width(); });
  attempt([](const Item& i) { return -i.first; });
  return best;
}

std::vector<std::int64_t> best_fit(const Problem& problem) {
  return best_fit(
      problem, [](const auto&) {}, [](std::int64_t) { return true; });
}

}  // namespace ashlar::plan
