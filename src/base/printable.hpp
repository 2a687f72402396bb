// What a file or a user wrote, inside a message of one line.
#pragma once

#include <string>
#include <string_view>

namespace ashlar {

/// Control characters as \x0d: a raw one breaks the line, or overwrites it on a terminal.
std::string printable(std::string_view text);

}  // namespace ashlar
