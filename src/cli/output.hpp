// Files that commands write.
#pragma once

#include <functional>
#include <iosfwd>
#include <string>

namespace ashlar::cli {

/// @throws InvalidArgument when the file cannot be written.
void write_file(const std::string& path, const std::function<void(std::ostream&)>& write);

}  // namespace ashlar::cli
