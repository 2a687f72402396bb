#include "cli/output.hpp"

#include <fmt/format.h>

#include <cerrno>
#include <cstring>
#include <fstream>

#include "ashlar/error.hpp"
#include "base/printable.hpp"

namespace ashlar::cli {

void write_file(const std::string& path, const std::function<void(std::ostream&)>& write) {
  std::ofstream out(path, std::ios::binary);
  if (out) write(out);
  out.close();
  if (!out) {
    throw InvalidArgument(
        printable(fmt::format("{} cannot be written: {}", path, std::strerror(errno))));
  }
}

}  // namespace ashlar::cli
