#include "simulate/measurements.hpp"

#include <fmt/format.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <istream>
#include <map>
#include <set>

#include "ashlar/error.hpp"
#include "base/parse_number.hpp"
#include "base/printable.hpp"

namespace ashlar::simulate {
namespace {

/// Fields of a line; one in quotes may hold commas.
std::vector<std::string> fields_of(const std::string& line) {
  std::vector<std::string> fields(1);
  bool quoted = false;
  for (const char c : line) {
    if (c == '"') {
      quoted = !quoted;
    } else if (c == ',' && !quoted) {
      fields.emplace_back();
    } else {
      fields.back() += c;
    }
  }
  return fields;
}

class Reader {
 public:
  Reader(std::istream& in, const std::string& source) : in_(in), source_(source) {}

  std::vector<Measurement> read() {
    if (!next()) reject("is empty: a header with 'row_id' is needed");
    const auto names = fields_of(text_);
    for (std::size_t i = 0; i < names.size(); ++i) column_.emplace(names[i], i);
    while (next()) {
      fields_ = fields_of(text_);
      if (fields_.size() != names.size())
        reject(fmt::format("has {} fields, the header {}", fields_.size(), names.size()));
      rows_.push_back(row());
    }
    if (in_.bad()) reject("cannot be read");
    if (rows_.empty()) reject("has no rows");
    return std::move(rows_);
  }

 private:
  bool next() {
    while (std::getline(in_, text_)) {
      ++line_;
      if (text_.ends_with('\r')) text_.pop_back();
      if (!text_.empty()) return true;
    }
    return false;
  }

  Measurement row() {
    Measurement m;
    m.row_id = field("row_id");
    if (!ids_.insert(m.row_id).second) reject(fmt::format("repeats row_id '{:.40}'", m.row_id));
    m.layers = whole("n_layers", 100000);
    m.width = whole("d_model", 1 << 20);
    m.heads = whole("n_heads", 1 << 16);
    if (m.width % m.heads != 0) reject("has a d_model that is no multiple of n_heads");
    m.vocabulary = whole("vocab", 1 << 24);
    m.inner_by_width = whole("ffn_mult", 64);
    m.sequence = whole("seq_len", 1 << 24);
    m.ranks = static_cast<int>(whole("n_gpus", 1 << 20));
    m.gpu = field("gpu");
    m.bf16 = field("precision").ends_with("bf16");
    m.f32_parameters = one_of("mp_mode", "DEFAULT", "PURE");
    require("sharding", "FULL_SHARD");
    m.recompute = one_of("act_ckpt", "True", "False");
    require("act_cpu_offload", "False");
    m.micro_batch = whole("micro_batch", 1 << 20);
    m.accumulate = whole("grad_accum", 1 << 20);
    m.tokens_per_second = number("tokens_per_s");
    return m;
  }

  const std::string& field(const char* name) const {
    const auto found = column_.find(name);
    if (found == column_.end()) {
      throw InvalidArgument(printable(fmt::format("{} has no column '{}'", source_, name)));
    }
    return fields_[found->second];
  }

  template <typename Number>
  Number parsed(const char* name) const {
    const std::string& text = field(name);
    Number value{};
    if (!parse_number(text, value)) reject(fmt::format("has {} '{:.40}', no number", name, text));
    return value;
  }

  std::int64_t whole(const char* name, std::int64_t most) const {
    const auto value = parsed<std::int64_t>(name);
    if (value < 1 || value > most)
      reject(fmt::format("has {} {}, not within 1 to {}", name, value, most));
    return value;
  }

  double number(const char* name) const {
    const auto value = parsed<double>(name);
    if (!(value > 0 && value < 1e15)) reject(fmt::format("has {} {}", name, value));
    return value;
  }

  bool one_of(const char* name, const char* yes, const char* no) const {
    if (field(name) != yes && field(name) != no)
      reject(fmt::format("has {} '{:.40}'; {} or {} is understood", name, field(name), yes, no));
    return field(name) == yes;
  }

  void require(const char* name, const char* value) const { one_of(name, value, value); }

  [[noreturn]] void reject(const std::string& why) const {
    throw InvalidArgument(printable(fmt::format("{} line {} {}", source_, line_, why)));
  }

  std::istream& in_;
  const std::string& source_;
  std::string text_;
  int line_ = 0;
  std::map<std::string, std::size_t> column_;
  std::vector<std::string> fields_;
  std::set<std::string> ids_;
  std::vector<Measurement> rows_;
};

}  // namespace

std::vector<Measurement> read_measurements(std::istream& in, const std::string& source) {
  return Reader(in, source).read();
}

std::vector<Measurement> read_measurements(const std::string& path) {
  std::ifstream in(path);
  if (!in) throw InvalidArgument(printable(fmt::format("{}: {}", path, std::strerror(errno))));
  return read_measurements(in, path);
}

}  // namespace ashlar::simulate
