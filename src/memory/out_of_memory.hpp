// Checks and the one sentence that every resource throws when it cannot serve a request.
#pragma once

#include <cstdint>
#include <string_view>

#include "ashlar/category.hpp"

namespace ashlar::detail {

/// "out of memory: 1.00 GiB for activation: <where>; <remedy>".
/// @param where the resource and what it holds. @param remedy what the user can do.
[[noreturn]] void throw_out_of_memory(std::int64_t bytes, Category category, std::string_view where,
                                      std::string_view remedy);

/// @throws InvalidArgument when `bytes` is negative.
void check_request(std::int64_t bytes, Category category);

}  // namespace ashlar::detail
