// A plan as a drawing: time across, offsets up, one rectangle per buffer.
#pragma once

#include <cstdint>
#include <string>

#include "ashlar/memory_plan.hpp"
#include "memory/plan/csv.hpp"

namespace ashlar::cli {

/// @param capacity bytes, drawn as a line; 0: none
/// @param title of the drawing
std::string plan_svg(const plan::Table& table, const PlanResult& result, std::int64_t capacity,
                     const std::string& title);

}  // namespace ashlar::cli
