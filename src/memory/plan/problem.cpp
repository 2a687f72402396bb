#include "memory/plan/problem.hpp"

#include <algorithm>
#include <numeric>

#include "ashlar/memory_resource.hpp"

namespace ashlar::plan {
namespace {

struct Event {
  std::int64_t instant;
  bool starts;  // ends come first
  std::size_t buffer;
  auto operator<=>(const Event&) const = default;
};

std::vector<Event> events_of(std::span<const PlannedBuffer> buffers) {
  std::vector<Event> events;
  for (std::size_t i = 0; i < buffers.size(); ++i) {
    if (buffers[i].size <= 0 || buffers[i].upper <= buffers[i].lower) continue;
    events.push_back({buffers[i].lower, true, i});
    events.push_back({buffers[i].upper, false, i});
  }
  std::sort(events.begin(), events.end());
  return events;
}

/// A set in use together is maximal where an end follows a start.
int number_sections(const std::vector<Event>& events, std::vector<Item>& items) {
  int sections = 0;
  bool grown = false;
  for (const Event& event : events) {
    if (event.starts) {
      items[event.buffer].first = sections;
      grown = true;
      continue;
    }
    if (grown) ++sections;
    grown = false;
    items[event.buffer].last = sections;
  }
  return sections;
}

std::vector<std::size_t> sorted_order(const std::vector<Item>& items) {
  std::vector<std::size_t> order;
  for (std::size_t i = 0; i < items.size(); ++i)
    if (items[i].size > 0) order.push_back(i);
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return items[a] < items[b]; });
  return order;
}

std::vector<Item> in_order(const std::vector<Item>& items, const std::vector<std::size_t>& order) {
  std::vector<Item> sorted;
  for (const std::size_t i : order) sorted.push_back(items[i]);
  return sorted;
}

std::int64_t maximum_load(const Problem& problem) {
  std::vector<std::int64_t> change(static_cast<std::size_t>(problem.sections) + 1);
  for (const Item& item : problem.items) {
    change[static_cast<std::size_t>(item.first)] += item.size;
    change[static_cast<std::size_t>(item.last)] -= item.size;
  }
  std::int64_t load = 0, largest = 0;
  for (const std::int64_t c : change) largest = std::max(largest, load += c);
  return largest;
}

}  // namespace

Problem canonical(std::span<const PlannedBuffer> buffers, std::int64_t alignment) {
  Problem problem;
  problem.buffers = buffers.size();
  std::vector<Item> items(buffers.size());
  const std::vector<Event> events = events_of(buffers);
  problem.sections = number_sections(events, items);
  std::int64_t unit = 0;
  for (const Event& event : events) {
    items[event.buffer].size = align_up(buffers[event.buffer].size, alignment);
    unit = std::gcd(unit, items[event.buffer].size);
  }
  problem.unit = std::max<std::int64_t>(unit, 1);
  for (Item& item : items) item.size /= problem.unit;

  problem.buffer_of = sorted_order(items);
  problem.items = in_order(items, problem.buffer_of);
  for (Item& item : items)
    item = {problem.sections - item.last, problem.sections - item.first, item.size};
  std::vector<std::size_t> backwards = sorted_order(items);
  if (std::vector<Item> mirrored = in_order(items, backwards); mirrored < problem.items) {
    problem.items = std::move(mirrored);
    problem.buffer_of = std::move(backwards);
  }
  problem.load = maximum_load(problem);
  return problem;
}

std::int64_t height_of(const Problem& problem, std::span<const std::int64_t> offsets) {
  std::int64_t height = 0;
  for (std::size_t i = 0; i < offsets.size(); ++i)
    height = std::max(height, offsets[i] + problem.items[i].size);
  return height;
}

MemoryPlan to_plan(const Problem& problem, std::span<const std::int64_t> offsets) {
  MemoryPlan plan;
  plan.offsets.assign(problem.buffers, 0);
  for (std::size_t i = 0; i < offsets.size(); ++i)
    plan.offsets[problem.buffer_of[i]] = offsets[i] * problem.unit;
  plan.height = height_of(problem, offsets) * problem.unit;
  return plan;
}

std::vector<std::int64_t> largest_loads(const Problem& problem) {
  std::vector<std::int64_t> load(static_cast<std::size_t>(problem.sections));
  for (const Item& item : problem.items)
    for (int s = item.first; s < item.last; ++s) load[static_cast<std::size_t>(s)] += item.size;
  std::vector<std::int64_t> largest;
  for (const Item& item : problem.items)
    largest.push_back(*std::max_element(load.begin() + item.first, load.begin() + item.last));
  return largest;
}

}  // namespace ashlar::plan
