// Traces from CSV: RMM's log and our own.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>
#include <unordered_map>

#include "ashlar/allocation_trace.hpp"
#include "ashlar/error.hpp"
#include "base/printable.hpp"

namespace ashlar {
namespace {

constexpr std::array<std::string_view, 8> kColumns{"Thread", "Time",   "Action",   "Pointer",
                                                   "Size",   "Stream", "Category", "Name"};
constexpr std::size_t kRequired = 6;
constexpr std::int64_t kMostLive = std::int64_t{1} << 62;  // sums of live bytes stay in 64 bits
enum Column : std::size_t { thread, time, action, pointer, size, stream, category, name };

std::vector<std::string_view> split(std::string_view line) {
  std::vector<std::string_view> fields;
  for (;;) {
    const std::size_t comma = line.find(',');
    fields.push_back(line.substr(0, comma));
    if (comma == std::string_view::npos) return fields;
    line.remove_prefix(comma + 1);
  }
}

class Reader {
 public:
  Reader(std::istream& input, std::string_view file) : input_(input), file_(file) {}

  Trace read() {
    if (!next()) reject("the file is empty; its first line names the columns");
    read_header();
    while (next())
      if (!text_.empty()) read_row();
    if (input_.bad()) reject("cannot be read further");
    return std::move(trace_);
  }

 private:
  struct Block {
    TraceOperation allocation;
    std::int64_t freed = 0;  // line
  };

  [[noreturn]] void reject(std::string_view why) const {
    throw InvalidArgument(
        printable(fmt::format("{}:{}: {}", file_, std::max<std::int64_t>(line_, 1), why)));
  }

  bool next() {
    if (!std::getline(input_, text_)) return false;
    ++line_;
    if (text_.ends_with('\r')) text_.pop_back();
    return true;
  }

  void read_header() {
    fields_ = split(text_);
    for (std::size_t i = 0; i < fields_.size(); ++i) {
      const auto known = std::ranges::find(kColumns, fields_[i]);
      if (known == kColumns.end()) reject(fmt::format("unknown column '{}'", fields_[i]));
      auto& place = places_[static_cast<std::size_t>(known - kColumns.begin())];
      if (place) reject(fmt::format("column {} twice", fields_[i]));
      place = i;
    }
    for (std::size_t i = 0; i < kRequired; ++i)
      if (!places_[i])
        reject(fmt::format("no column {}; needed are Thread,Time,Action,Pointer,Size,Stream",
                           kColumns[i]));
    columns_ = fields_.size();
  }

  void read_row() {
    fields_ = split(text_);
    if (fields_.size() != columns_)
      reject(fmt::format("{} fields instead of {}", fields_.size(), columns_));
    const std::string_view what = field(action);
    const std::uint64_t address = number(pointer, "an address");
    const std::uint64_t bytes = number(size, "a number of bytes");
    if (bytes > INT64_MAX) reject(fmt::format("{} bytes are too many", bytes));
    TraceOperation operation;
    operation.bytes = static_cast<std::int64_t>(bytes);
    operation.stream = number(stream, "a stream");
    operation.line = line_;
    if (places_[category]) operation.category = read_category();
    if (address == 0 && operation.bytes == 0) return;  // RMM gives nothing for nothing
    if (what == "allocate")
      allocate(address, operation);
    else if (what == "free")
      free(address, operation);
    else if (what != "allocate failure")
      reject(fmt::format("unknown action '{}'; it is allocate, free or allocate failure", what));
  }

  void allocate(std::uint64_t address, TraceOperation operation) {
    Block& block = blocks_[address];
    if (block.allocation.line != 0 && block.freed == 0)
      reject(fmt::format("allocates {:#x}, which is live since line {}", address,
                         block.allocation.line));
    if (trace_.blocks == UINT32_MAX) reject("too many allocations");
    operation.allocate = true;
    operation.block = trace_.blocks++;
    operation.name = read_name();
    block = {operation, 0};
    if (operation.bytes > kMostLive - live_)
      reject(fmt::format("allocates {} B, more than 2^62 B are live then", operation.bytes));
    live_ += operation.bytes;
    trace_.operations.push_back(operation);
  }

  void free(std::uint64_t address, TraceOperation operation) {
    const auto found = blocks_.find(address);
    if (found == blocks_.end())
      reject(fmt::format("frees {:#x}, which was never allocated", address));
    Block& block = found->second;
    if (block.freed != 0)
      reject(fmt::format("frees {:#x}, which was freed on line {}", address, block.freed));
    if (operation.bytes != block.allocation.bytes)
      reject(fmt::format("frees {} B at {:#x}, which has {} B since line {}", operation.bytes,
                         address, block.allocation.bytes, block.allocation.line));
    block.freed = line_;
    live_ -= operation.bytes;
    operation.block = block.allocation.block;
    operation.category = block.allocation.category;
    operation.name = block.allocation.name;
    trace_.operations.push_back(operation);
  }

  std::string_view field(Column column) const { return fields_[*places_[column]]; }

  std::uint64_t number(Column column, std::string_view meaning) const {
    std::string_view text = field(column);
    if (text == "(nil)") return 0;
    int base = 10;
    if (text.starts_with("0x")) {
      text.remove_prefix(2);
      base = 16;
    }
    std::uint64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
    if (error != std::errc() || end != text.data() + text.size())
      reject(fmt::format("{} '{}' is not {}", kColumns[column], field(column), meaning));
    return value;
  }

  Category read_category() const {
    for (int i = 0; i < kCategories; ++i)
      if (name_of(static_cast<Category>(i)) == field(category)) return static_cast<Category>(i);
    reject(fmt::format("unknown category '{}'", field(category)));
  }

  std::uint32_t read_name() {
    if (!places_[name] || field(name).empty()) return 0;
    const auto [place, fresh] = names_.emplace(field(name), trace_.names.size());
    if (fresh) trace_.names.emplace_back(field(name));
    return static_cast<std::uint32_t>(place->second);
  }

  std::istream& input_;
  std::string file_;
  std::string text_;
  std::int64_t line_ = 0;
  std::vector<std::string_view> fields_;
  std::array<std::optional<std::size_t>, kColumns.size()> places_;
  std::size_t columns_ = 0;
  std::unordered_map<std::uint64_t, Block> blocks_;
  std::unordered_map<std::string, std::size_t> names_;
  std::int64_t live_ = 0;
  Trace trace_;
};

}  // namespace

Trace read_trace(std::istream& input, std::string_view name) { return Reader(input, name).read(); }

Trace read_trace(const std::filesystem::path& path) {
  std::ifstream input(path);
  if (!input || std::filesystem::is_directory(path))
    throw InvalidArgument(fmt::format("{}: cannot be read", path.string()));
  return read_trace(input, path.string());
}

}  // namespace ashlar
