#include "memory/out_of_memory.hpp"

#include <fmt/format.h>

#include "ashlar/error.hpp"
#include "ashlar/memory_resource.hpp"

namespace ashlar::detail {

void throw_out_of_memory(std::int64_t bytes, Category category, std::string_view where,
                         std::string_view remedy) {
  throw OutOfMemory(fmt::format("out of memory: {} for {}: {}; {}", format_bytes(bytes),
                                name_of(category), where, remedy));
}

void check_request(std::int64_t bytes, Category category) {
  if (bytes < 0)
    throw InvalidArgument(
        fmt::format("cannot allocate {} bytes for {}: the size is negative (an overflow upstream?)",
                    bytes, name_of(category)));
}

}  // namespace ashlar::detail
