// minimalloc's files: `id,lower,upper,size` with columns in any order, as the header says.
#pragma once

#include <iosfwd>
#include <span>
#include <string>
#include <vector>

#include "ashlar/memory_plan.hpp"

namespace ashlar::plan {

struct Table {
  std::vector<std::string> ids;
  std::vector<PlannedBuffer> buffers;
};

/// Further columns are ignored; so are empty lines and a carriage return at a line's end.
/// @param name of the source, for messages
/// @throws InvalidArgument naming source and line: a missing or repeated column, a field that is
/// missing or no integer, an empty or repeated id, a negative size, upper not above lower
Table read_table(std::istream& in, const std::string& name);

/// As read, with the column `offset`.
void write_table(std::ostream& out, const Table& table, std::span<const std::int64_t> offsets);

}  // namespace ashlar::plan
