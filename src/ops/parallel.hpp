// Splits the work of a kernel over threads. The split depends on the size alone, so bits depend
// neither on the number of threads nor on which thread runs what.
#pragma once

#include <algorithm>
#include <cstdint>

#include "ashlar/op.hpp"
#include "runtime/thread_pool.hpp"

namespace ashlar {

/// Runs task(0) .. task(tasks - 1), inline when the context has no pool.
template <class Task>
void for_each_task(const RunContext& context, std::int64_t tasks, const Task& task) {
  if (context.pool == nullptr || tasks <= 1) {
    for (std::int64_t i = 0; i < tasks; ++i) task(i);
    return;
  }
  context.pool->parallel(static_cast<int>(tasks), [&task](int i) { task(std::int64_t{i}); });
}

/// Runs body(begin, end) over [0, count) in chunks of `chunk`; the last one may be shorter.
template <class Body>
void for_each_chunk(const RunContext& context, std::int64_t count, std::int64_t chunk,
                    const Body& body) {
  for_each_task(context, (count + chunk - 1) / chunk,
                [&](std::int64_t i) { body(i * chunk, std::min(count, (i + 1) * chunk)); });
}

}  // namespace ashlar
