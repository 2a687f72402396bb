// Problems too large to be searched whole: where the load is highest decides, so what meets there
// (the core) is planned as a problem of its own, and all else by best fit around it.
#pragma once

#include "memory/plan/best_fit.hpp"

namespace ashlar::plan {

/// Cores that grow: of sections above 99 % of the load, then 97 %, 95 %, ..., while they are small
/// enough to be searched.
/// @param solve plans a core: offsets in its order
/// @param accept called with each packing that is lower than `height` and those before
/// @param go_on called now and then with the placements tried since; false stops
void fit_around_cores(
    const Problem& problem, std::int64_t height,
    const std::function<std::vector<std::int64_t>(const std::vector<PlannedBuffer>&)>& solve,
    const Incumbent& accept, const std::function<bool(std::int64_t)>& go_on);

}  // namespace ashlar::plan
