// Text that a user or a file named, inside SVG or HTML.
#pragma once

#include <string>
#include <string_view>

namespace ashlar {

/// Characters that mark up as entities, control characters as spaces.
std::string markup(std::string_view text);

}  // namespace ashlar
