// Writes Python's pickle format, protocol 2, as far as a snapshot needs: dictionaries, lists,
// integers, booleans and text.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace ashlar::detail {

/// Values come in order; inside a dictionary each follows its key, which is text.
class PickleWriter {
 public:
  void begin_dict() { bytes_ += "}("; }
  void end_dict() { bytes_ += 'u'; }
  void begin_list() { bytes_ += "]("; }
  void end_list() { bytes_ += 'e'; }

  void text(std::string_view value) {
    bytes_ += 'X';
    little_endian(value.size(), 4);
    bytes_ += value;
  }
  void boolean(bool value) { bytes_ += value ? '\x88' : '\x89'; }
  void integer(std::int64_t value) {
    const auto bits = static_cast<std::uint64_t>(value);
    if (value >= 0 && value < 256) {
      bytes_ += 'K';
      little_endian(bits, 1);
    } else if (value >= INT32_MIN && value <= INT32_MAX) {
      bytes_ += 'J';
      little_endian(bits, 4);
    } else {
      bytes_ += "\x8a\x08";
      little_endian(bits, 8);
    }
  }

  void entry(std::string_view key, std::int64_t value) {
    text(key);
    integer(value);
  }
  void entry(std::string_view key, std::string_view value) {
    text(key);
    text(value);
  }

  /// The whole pickle.
  std::string take() { return std::move(bytes_) + '.'; }

 private:
  void little_endian(std::uint64_t value, int count) {
    for (int i = 0; i < count; ++i) bytes_ += static_cast<char>(value >> 8 * i & 255);
  }

  std::string bytes_ = "\x80\x02";
};

}  // namespace ashlar::detail
