#include "memory/plan/csv.hpp"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <istream>
#include <ostream>
#include <unordered_map>

#include "ashlar/error.hpp"
#include "base/printable.hpp"

namespace ashlar::plan {
namespace {

constexpr std::array<std::string_view, 4> kColumns{"id", "lower", "upper", "size"};

std::vector<std::string_view> fields_of(std::string_view line) {
  std::vector<std::string_view> fields;
  for (std::size_t begin = 0; begin <= line.size();) {
    const std::size_t end = std::min(line.find(',', begin), line.size());
    std::string_view field = line.substr(begin, end - begin);
    while (field.starts_with(' ')) field.remove_prefix(1);
    while (field.ends_with(' ')) field.remove_suffix(1);
    fields.push_back(field);
    begin = end + 1;
  }
  return fields;
}

class Reader {
 public:
  Reader(std::istream& in, const std::string& name) : in_(in), name_(name) {}

  Table read() {
    const bool header = next();
    if (in_.bad()) reject("cannot be read");
    if (!header) reject("is empty: a header 'id,lower,upper,size' is needed");
    read_header();
    while (next()) read_row();
    if (in_.bad()) reject("cannot be read");
    return std::move(table_);
  }

 private:
  bool next() {
    while (std::getline(in_, text_)) {
      ++line_;
      if (text_.ends_with('\r')) text_.pop_back();
      if (text_.find_first_not_of(" \t") != std::string::npos) return true;
    }
    return false;
  }

  void read_header() {
    const auto names = fields_of(text_);
    columns_ = names.size();
    for (std::size_t c = 0; c < kColumns.size(); ++c) {
      position_[c] = names.size();
      for (std::size_t p = 0; p < names.size(); ++p) {
        if (names[p] != kColumns[c]) continue;
        if (position_[c] != names.size())
          reject(fmt::format("has the column '{}' twice", kColumns[c]));
        position_[c] = p;
      }
      if (position_[c] == names.size())
        reject(fmt::format("has no column '{}': a header 'id,lower,upper,size' is needed",
                           kColumns[c]));
    }
  }

  void read_row() {
    const auto fields = fields_of(text_);
    if (fields.size() != columns_)
      reject(fmt::format("has {} fields, the header {}", fields.size(), columns_));
    const std::string id(fields[position_[0]]);
    if (id.empty()) reject("has an empty id");
    const PlannedBuffer buffer{number(fields, 1), number(fields, 2), number(fields, 3)};
    if (buffer.size < 0) reject(fmt::format("has a negative size, {}", buffer.size));
    if (buffer.upper <= buffer.lower)
      reject(fmt::format("has upper {} not above lower {}", buffer.upper, buffer.lower));
    const auto [first, fresh] = line_of_.emplace(id, line_);
    if (!fresh) reject(fmt::format("repeats the id '{}' of line {}", id, first->second));
    table_.ids.push_back(id);
    table_.buffers.push_back(buffer);
  }

  std::int64_t number(const std::vector<std::string_view>& fields, std::size_t column) const {
    const std::string_view text = fields[position_[column]];
    std::int64_t value = 0;
    const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error == std::errc::result_out_of_range)
      reject(fmt::format("has {} '{}', beyond 64 bits", kColumns[column], text));
    if (error != std::errc() || stop != text.data() + text.size())
      reject(fmt::format("has {} '{}', not an integer", kColumns[column], text));
    return value;
  }

  [[noreturn]] void reject(const std::string& why) const {
    throw InvalidArgument(printable(line_ == 0 ? fmt::format("{} {}", name_, why)
                                               : fmt::format("{} line {} {}", name_, line_, why)));
  }

  std::istream& in_;
  const std::string& name_;
  std::string text_;
  int line_ = 0;
  std::size_t columns_ = 0;
  std::array<std::size_t, 4> position_{};
  std::unordered_map<std::string, int> line_of_;
  Table table_;
};

}  // namespace

Table read_table(std::istream& in, const std::string& name) { return Reader(in, name).read(); }

void write_table(std::ostream& out, const Table& table, std::span<const std::int64_t> offsets) {
  out << "id,lower,upper,size,offset\n";
  for (std::size_t i = 0; i < table.ids.size(); ++i) {
    const PlannedBuffer& buffer = table.buffers[i];
    out << fmt::format("{},{},{},{},{}\n", table.ids[i], buffer.lower, buffer.upper, buffer.size,
                       offsets[i]);
  }
}

}  // namespace ashlar::plan
