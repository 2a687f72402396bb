// The header's grammar, and reads and writes by range.
#include "sharding/safetensors.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "ashlar/error.hpp"
#include "sharding/convert.hpp"

namespace ashlar {
namespace {

using nlohmann::json;

static_assert(std::endian::native == std::endian::little, "safetensors are little-endian");

constexpr std::int64_t kMaxHeader = 100'000'000;  // the format's own limit
constexpr std::int64_t kReadElements = 1 << 16;

struct Type {
  std::string_view name;
  std::int64_t bytes;
  std::optional<DType> dtype;
};

constexpr std::array<Type, 15> kTypes{{{"F32", 4, DType::f32},
                                       {"BF16", 2, DType::bf16},
                                       {"F16", 2, DType::f16},
                                       {"F64", 8, DType::f64},
                                       {"I32", 4, DType::i32},
                                       {"I64", 8, DType::i64},
                                       {"U8", 1, DType::u8},
                                       {"BOOL", 1, {}},
                                       {"I8", 1, {}},
                                       {"F8_E4M3", 1, {}},
                                       {"F8_E5M2", 1, {}},
                                       {"I16", 2, {}},
                                       {"U16", 2, {}},
                                       {"U32", 4, {}},
                                       {"U64", 8, {}}}};

std::string_view file_type(DType dtype) {
  return std::ranges::find(kTypes, std::optional(dtype), &Type::dtype)->name;
}

/// Refusals that name the file.
struct Header {
  const std::filesystem::path& path;

  [[noreturn]] void refuse(std::string_view what) const {
    throw CorruptCheckpoint(fmt::format("{}: {}", path.string(), what));
  }

  std::int64_t natural(const json& value, std::string_view tensor, std::string_view what) const {
    if (!value.is_number_unsigned() || value.get<std::uint64_t>() > INT64_MAX)
      refuse(fmt::format("tensor '{}': {} is not a whole number", tensor, what));
    return value.get<std::int64_t>();
  }

  const json& member(const json& object, std::string_view tensor, const char* key) const {
    const auto found = object.find(key);
    if (found == object.end()) refuse(fmt::format("tensor '{}' has no {}", tensor, key));
    return *found;
  }

  json parse(std::string_view text) const {
    std::set<std::string> names;
    const auto once = [&](int depth, json::parse_event_t event, const json& value) {
      if (depth == 1 && event == json::parse_event_t::key &&
          !names.insert(value.get<std::string>()).second)
        refuse(fmt::format("tensor '{}' occurs twice", value.get<std::string>()));
      return true;
    };
    json header;
    try {
      header = json::parse(text, once);
    } catch (const json::exception& error) {
      refuse(fmt::format("the header is not JSON: {}", error.what()));
    }
    if (!header.is_object()) refuse("the header is not a JSON object");
    return header;
  }

  Shape shape(const json& extents, std::string_view tensor, std::int64_t& elements) const {
    if (!extents.is_array() || extents.size() > Shape::kMaxRank)
      refuse(fmt::format("tensor '{}': shape is not a list of at most {} extents", tensor,
                         Shape::kMaxRank));
    std::vector<std::int64_t> values;
    elements = 1;
    for (const json& extent : extents) {
      values.push_back(natural(extent, tensor, "an extent"));
      if (__builtin_mul_overflow(elements, values.back(), &elements))
        refuse(fmt::format("tensor '{}': its shape overflows", tensor));
    }
    return Shape(values);
  }

  SafetensorsEntry entry(const std::string& name, const json& object) const {
    if (!object.is_object()) refuse(fmt::format("tensor '{}' is not described by an object", name));
    SafetensorsEntry entry{.name = name, .type = {}, .dtype = {}, .shape = {}};
    const json& type = member(object, name, "dtype");
    if (type.is_string()) entry.type = type.get<std::string>();
    const auto* known = std::ranges::find(kTypes, entry.type, &Type::name);
    if (known == kTypes.end())
      refuse(fmt::format("tensor '{}' has the unknown type '{}'", name, entry.type));
    entry.dtype = known->dtype;
    std::int64_t elements = 0;
    entry.shape = shape(member(object, name, "shape"), name, elements);
    const json& offsets = member(object, name, "data_offsets");
    if (!offsets.is_array() || offsets.size() != 2)
      refuse(fmt::format("tensor '{}': data_offsets is not a pair", name));
    entry.begin = natural(offsets[0], name, "an offset");
    entry.end = natural(offsets[1], name, "an offset");
    std::int64_t bytes = 0;
    if (__builtin_mul_overflow(elements, known->bytes, &bytes) || entry.end - entry.begin != bytes)
      refuse(fmt::format("tensor '{}': {} of {} does not fill bytes [{}, {})", name,
                         to_string(entry.shape), entry.type, entry.begin, entry.end));
    return entry;
  }

  /// Entries in the order of their bytes, which fill [0, data_bytes) without gap or overlap.
  void place(std::vector<SafetensorsEntry>& entries, std::int64_t data_begin,
             std::int64_t data_bytes) const {
    std::ranges::sort(entries, [](const SafetensorsEntry& a, const SafetensorsEntry& b) {
      return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
    });
    std::int64_t end = 0;
    for (SafetensorsEntry& entry : entries) {
      if (entry.end > data_bytes)
        refuse(fmt::format("truncated: tensor '{}' needs {} bytes of data, the file has {}",
                           entry.name, entry.end, data_bytes));
      if (entry.begin != end)
        refuse(
            fmt::format("tensor '{}' begins at byte {} of the data, but the tensors before it "
                        "end at {}",
                        entry.name, entry.begin, end));
      end = entry.end;
      entry.begin += data_begin;
      entry.end += data_begin;
    }
    if (end != data_bytes) refuse(fmt::format("{} bytes after the last tensor", data_bytes - end));
  }
};

}  // namespace

SafetensorsFile::SafetensorsFile(InputFile file) : file_(std::move(file)) {
  try {
    read_header();
  } catch (const CorruptCheckpoint&) {
    file_.verify(std::min(file_.bytes(), 8 + kMaxHeader), "the header");
    throw;
  }
}

void SafetensorsFile::read_header() {
  const Header header{file_.path()};
  std::uint64_t length = 0;
  if (file_.bytes() < 8) header.refuse("too short for a safetensors file");
  file_.read_raw(0, std::as_writable_bytes(std::span(&length, 1)), "the header's length");
  if (length > kMaxHeader || static_cast<std::int64_t>(length) > file_.bytes() - 8)
    header.refuse("truncated, or not a safetensors file: its header does not fit");
  std::string text(length, '\0');
  file_.read_raw(8, std::as_writable_bytes(std::span(text)), "the header");
  const json parsed = header.parse(text);
  for (const auto& [name, value] : parsed.items()) {
    if (name != "__metadata__") {
      entries_.push_back(header.entry(name, value));
      continue;
    }
    if (!value.is_object()) header.refuse("__metadata__ is not an object");
    for (const auto& [key, text_value] : value.items()) {
      if (!text_value.is_string()) header.refuse("__metadata__ holds something other than text");
      metadata_[key] = text_value.get<std::string>();
    }
  }
  data_begin_ = 8 + static_cast<std::int64_t>(length);
  header.place(entries_, data_begin_, file_.bytes() - data_begin_);
  for (const SafetensorsEntry& entry : entries_) by_name_[entry.name] = &entry;
}

const SafetensorsEntry* SafetensorsFile::find(std::string_view name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : found->second;
}

void SafetensorsFile::read(std::string_view name, std::int64_t first, TensorView part) {
  const Header header{file_.path()};
  const SafetensorsEntry* entry = find(name);
  if (entry == nullptr) header.refuse(fmt::format("there is no tensor '{}'", name));
  if (!entry->dtype || !convertible(*entry->dtype, part.dtype))
    header.refuse(fmt::format("tensor '{}' is {} and cannot be read as {}", name, entry->type,
                              name_of(part.dtype)));
  const std::int64_t count = part.elements();
  if (first < 0 || count > entry->shape.elements() - first)
    throw InvalidArgument(fmt::format("{}: tensor '{}' {} has no elements [{}, {})",
                                      path().string(), name, to_string(entry->shape), first,
                                      first + count));
  const std::string what = fmt::format("tensor '{}'", name);
  if (!header_verified_) file_.verify(data_begin_, what);
  header_verified_ = true;
  const std::int64_t size = size_of(*entry->dtype);
  if (*entry->dtype == part.dtype) {
    file_.read(entry->begin + first * size, {part.data, static_cast<std::size_t>(count * size)},
               what);
    return;
  }
  std::vector<std::byte> raw(static_cast<std::size_t>(std::min(count, kReadElements) * size));
  for (std::int64_t done = 0; done < count; done += kReadElements) {
    const std::int64_t n = std::min(kReadElements, count - done);
    file_.read(entry->begin + (first + done) * size,
               std::span(raw).first(static_cast<std::size_t>(n * size)), what);
    convert(raw.data(), *entry->dtype, part.flat_slice(done, n));
  }
}

SafetensorsWriter::SafetensorsWriter(const std::filesystem::path& path,
                                     std::vector<TensorSpec> tensors,
                                     const std::map<std::string, std::string>& metadata)
    : file_(path), tensors_(std::move(tensors)) {
  nlohmann::ordered_json header;
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::int64_t offset = 0;
  for (const TensorSpec& tensor : tensors_) {
    if (header.contains(tensor.name))
      throw InvalidArgument(
          fmt::format("{}: tensor '{}' occurs twice", path.string(), tensor.name));
    const std::int64_t end = offset + tensor.shape.elements() * size_of(tensor.dtype);
    header[tensor.name] = {{"dtype", file_type(tensor.dtype)},
                           {"shape", tensor.shape.extents()},
                           {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text = tensors_.empty() && metadata.empty() ? "{}" : header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const std::uint64_t length = text.size();
  file_.write(std::as_bytes(std::span(&length, 1)));
  file_.write(text);
  skip_complete();
}

void SafetensorsWriter::skip_complete() {
  while (current_ < tensors_.size() && written_ == tensors_[current_].shape.elements()) {
    ++current_;
    written_ = 0;
  }
}

void SafetensorsWriter::write(TensorView part) {
  if (part.elements() == 0) return;
  if (current_ == tensors_.size() || part.dtype != tensors_[current_].dtype ||
      part.elements() > tensors_[current_].shape.elements() - written_)
    throw InvalidArgument(
        fmt::format("{}: {} elements of {} do not fit what is left of tensor '{}'",
                    file_.path().string(), part.elements(), name_of(part.dtype),
                    current_ == tensors_.size() ? "(none)" : tensors_[current_].name));
  file_.write(std::span<const std::byte>(part.data, static_cast<std::size_t>(part.bytes())));
  written_ += part.elements();
  skip_complete();
}

void SafetensorsWriter::finish() {
  if (current_ != tensors_.size())
    throw InvalidArgument(fmt::format("{}: tensor '{}' has {} of {} elements",
                                      file_.path().string(), tensors_[current_].name, written_,
                                      tensors_[current_].shape.elements()));
  file_.commit();
}

}  // namespace ashlar
