// The safetensors format: eight bytes of header length, a JSON header, then the tensors' bytes end
// to end (huggingface.co/docs/safetensors). Read by range, written as a stream.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "ashlar/dtype.hpp"
#include "ashlar/shape.hpp"
#include "ashlar/tensor_view.hpp"
#include "sharding/file.hpp"

namespace ashlar {

/// A tensor of a safetensors file.
struct SafetensorsEntry {
  std::string name;
  std::string type;            // as the file says: "F32", "BF16", "BOOL", ...
  std::optional<DType> dtype;  // empty for types that Ashlar does not know
  Shape shape;
  std::int64_t begin = 0;  // bytes [begin, end) of the file
  std::int64_t end = 0;
};

/// An open file whose header has been checked: lengths, types, and tensors that fill the file
/// without gap or overlap.
class SafetensorsFile {
 public:
  /// @throws InvalidArgument when the file cannot be opened, CorruptCheckpoint naming the path and
  /// the tensor otherwise.
  explicit SafetensorsFile(InputFile file);
  explicit SafetensorsFile(const std::filesystem::path& path) : SafetensorsFile(InputFile(path)) {}

  const std::filesystem::path& path() const { return file_.path(); }
  /// In the order of their bytes.
  std::span<const SafetensorsEntry> entries() const { return entries_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  /// nullptr when the file has no such tensor.
  const SafetensorsEntry* find(std::string_view name) const;
  /// Elements [first, first + n) of a tensor, converted to the type of `part` ([n], contiguous).
  /// @throws CorruptCheckpoint, InvalidArgument naming path and tensor: absent, range, a type that
  /// does not convert.
  void read(std::string_view name, std::int64_t first, TensorView part);

 private:
  void read_header();

  InputFile file_;
  std::vector<SafetensorsEntry> entries_;
  std::unordered_map<std::string_view, const SafetensorsEntry*> by_name_;
  std::map<std::string, std::string> metadata_;
  std::int64_t data_begin_ = 0;
  bool header_verified_ = false;  // by the first read, whose tensor the error can name
};

/// What a writer is going to write.
struct TensorSpec {
  std::string name;
  DType dtype = DType::f32;
  Shape shape;
};

/// Streams a file: the header first, then every tensor's elements in order, in pieces of any size.
/// Nothing stands at `path` before finish(). @throws InvalidArgument naming the path (a full disk,
/// ...).
class SafetensorsWriter {
 public:
  SafetensorsWriter(const std::filesystem::path& path, std::vector<TensorSpec> tensors,
                    const std::map<std::string, std::string>& metadata = {});

  /// The next elements of the current tensor, contiguous and of its type.
  void write(TensorView part);
  /// @throws InvalidArgument when a tensor is incomplete.
  void finish();
  const OutputFile& file() const { return file_; }

 private:
  void skip_complete();

  OutputFile file_;
  std::vector<TensorSpec> tensors_;
  std::size_t current_ = 0;
  std::int64_t written_ = 0;  // elements of the current tensor
};

}  // namespace ashlar
