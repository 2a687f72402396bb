// What somebody who mistyped a name may have meant.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace ashlar {

/// Insertions, deletions, replacements and swaps of neighbours that turn one into the other
/// (optimal string alignment).
int edit_distance(std::string_view a, std::string_view b);

/// "did you mean --stage or --steps?" of the names closest to `name`, at most three; all names,
/// "one of: a, b", when none is close.
std::string suggestion(std::string_view name, std::span<const std::string> names);

}  // namespace ashlar
