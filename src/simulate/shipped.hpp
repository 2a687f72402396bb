// The cluster files that are compiled in (cmake/AshlarEmbed.cmake writes shipped.cpp from them).
#pragma once

#include <span>
#include <string_view>

namespace ashlar::simulate {

std::span<const std::string_view> shipped_names();
/// Empty when there is none of that name.
std::string_view shipped_json(std::string_view name);

}  // namespace ashlar::simulate
