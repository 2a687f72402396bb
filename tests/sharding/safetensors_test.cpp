// safetensors: what is written is read back, and no malformed file gets through or crashes.
#include "sharding/safetensors.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <random>

#include "ashlar/error.hpp"
#include "support/temporary_folder.hpp"

using namespace ashlar;

namespace {

template <typename T>
TensorView view(std::vector<T>& values) {
  return {values.data(), dtype_of<T>, {static_cast<std::int64_t>(values.size())}};
}

/// A file of a given header text and data.
std::string file_of(const std::string& header, const std::string& data = "") {
  const std::uint64_t length = header.size();
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &length, 8);
  return bytes + header + data;
}

std::string refusal(const std::filesystem::path& path) {
  try {
    const SafetensorsFile file(path);
  } catch (const CorruptCheckpoint& error) {
    return error.what();
  }
  return "accepted";
}

void write_sample(const std::filesystem::path& path) {
  std::vector<float> a{1, 2, 3, 4, 5, 6};
  std::vector<bf16> b{bf16(0.5F), bf16(-2.0F), bf16(3.14159F)};
  std::vector<std::int64_t> c{1LL << 40};
  SafetensorsWriter writer(path,
                           {{"a", DType::f32, {2, 3}},
                            {"empty", DType::f32, {0, 7}},
                            {"b", DType::bf16, {3}},
                            {"c", DType::i64, {}}},
                           {{"format", "pt"}});
  writer.write(view(a).flat_slice(0, 4));
  writer.write(view(a).flat_slice(4, 2));
  writer.write(view(b));
  writer.write(view(c));
  writer.finish();
}

}  // namespace

TEST_CASE("safetensors: what is written is read back, in any range and converted") {
  const TemporaryFolder folder;
  const auto path = folder / "x.safetensors";
  write_sample(path);
  SafetensorsFile file(path);
  CHECK(file.metadata().at("format") == "pt");
  REQUIRE(file.entries().size() == 4);
  CHECK(file.find("a")->shape == Shape{2, 3});
  CHECK(file.find("a")->begin % 8 == 0);
  CHECK(file.find("empty")->shape == Shape{0, 7});
  CHECK(file.find("none") == nullptr);
  std::vector<float> middle(3);
  file.read("a", 2, view(middle));
  CHECK(middle == std::vector<float>{3, 4, 5});
  std::vector<float> wide(3);
  file.read("b", 0, view(wide));
  CHECK(wide == std::vector<float>{0.5F, -2.0F, 3.140625F});
  std::vector<bf16> narrow(2);
  file.read("a", 4, view(narrow));
  CHECK(float(narrow[0]) == 5);
  std::vector<std::int64_t> c(1);
  file.read("c", 0, view(c));
  CHECK(c[0] == 1LL << 40);
  CHECK_THROWS_AS(file.read("c", 0, view(wide)), CorruptCheckpoint);
  CHECK_THROWS_AS(file.read("none", 0, view(wide)), CorruptCheckpoint);
  CHECK_THROWS_AS(file.read("a", 4, view(wide)), InvalidArgument);
  CHECK_THROWS_AS(file.read("a", -1, view(wide)), InvalidArgument);
}

TEST_CASE("safetensors: malformed headers are refused with the tensor's name") {
  const TemporaryFolder folder;
  const auto path = folder / "x.safetensors";
  const auto tensor = [](const std::string& fields) { return "{\"w\":{" + fields + "}}"; };
  const std::vector<std::pair<std::string, std::string>> cases{
      {"", "too short"},
      {std::string(8, '\xff') + "{}", "header does not fit"},
      {file_of("{\"w\""), "not JSON"},
      {file_of("[]"), "not a JSON object"},
      {file_of(std::string(100000, '[')), "not JSON"},
      {file_of("{\"w\":3}"), "'w' is not described"},
      {file_of(tensor("\"shape\":[1],\"data_offsets\":[0,4]")), "'w' has no dtype"},
      {file_of(tensor("\"dtype\":\"F32\",\"data_offsets\":[0,4]")), "'w' has no shape"},
      {file_of(tensor("\"dtype\":\"F32\",\"shape\":[1]")), "'w' has no data_offsets"},
      {file_of(tensor("\"dtype\":\"F3\",\"shape\":[1],\"data_offsets\":[0,4]")), "type 'F3'"},
      {file_of(tensor("\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]")), "whole number"},
      {file_of(tensor("\"dtype\":\"F32\",\"shape\":[1.5],\"data_offsets\":[0,4]")), "whole number"},
      {file_of(tensor("\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]")), "not a pair"},
      {file_of(tensor("\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]")), "does not fill"},
      {file_of(
           tensor("\"dtype\":\"F32\",\"shape\":[4611686018427387904,4],\"data_offsets\":[0,4]")),
       "overflows"},
      {file_of(tensor("\"dtype\":\"F64\",\"shape\":[4611686018427387904],\"data_offsets\":[0,4]")),
       "does not fill"},
      {file_of(tensor("\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]"), "abc"),
       "truncated: tensor 'w'"},
      {file_of(tensor("\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]"), "abcde"),
       "1 bytes after"},
      {file_of(tensor("\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[1,5]"), "abcde"),
       "'w' begins at byte 1"},
      {file_of("{\"v\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
               "\"w\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}",
               "0123456789ab"),
       "'w' begins at byte 4"},
      {file_of("{\"w\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
               "\"w\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}",
               "a"),
       "'w' occurs twice"},
      {file_of("{\"__metadata__\":{\"a\":1}}"), "__metadata__"},
      {file_of(tensor("\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,4]")),
       "at most 8"}};
  for (const auto& [bytes, words] : cases) {
    spill(path, bytes);
    const std::string said = refusal(path);
    CAPTURE(words);
    CHECK_MESSAGE(said.find(words) != std::string::npos, said);
    CHECK(said.find(path.string()) != std::string::npos);
  }
  CHECK_THROWS_AS(SafetensorsFile(folder / "absent"), InvalidArgument);
  CHECK_THROWS_AS(SafetensorsFile(folder.path), InvalidArgument);
}

TEST_CASE("safetensors: mutated files raise a clear error or read within bounds") {
  const TemporaryFolder folder;
  const auto path = folder / "x.safetensors";
  write_sample(path);
  const std::string good = slurp(path);
  std::mt19937 random(7);
  const auto below = [&](std::size_t n) { return static_cast<std::size_t>(random() % n); };
  static constexpr std::string_view kTokens[] = {
      "\"", "{", "}", "[", "]", ",", ":", "-1", "0", "18446744073709551615", "1e99", "F64", "null"};
  int refused = 0;
  for (int round = 0; round < 3000; ++round) {
    std::string bytes = good;
    for (std::size_t edits = 1 + below(3); edits > 0; --edits) {
      const std::size_t at = below(bytes.size());
      switch (below(5)) {
        case 0:
          bytes[at] = static_cast<char>(random());
          break;
        case 1:
          bytes.resize(at);
          break;
        case 2:
          bytes.insert(at, kTokens[below(std::size(kTokens))]);
          break;
        case 3:
          bytes.erase(at, 1 + below(8));
          break;
        default:
          bytes[at] = static_cast<char>(bytes[at] ^ (1 << below(8)));
      }
      if (bytes.empty()) bytes = "x";
    }
    spill(path, bytes);
    try {
      SafetensorsFile file(path);
      for (const SafetensorsEntry& entry : file.entries()) {
        if (!entry.dtype) continue;
        std::vector<std::byte> values(static_cast<std::size_t>(entry.end - entry.begin));
        file.read(entry.name, 0, {values.data(), *entry.dtype, entry.shape});
      }
    } catch (const CorruptCheckpoint& error) {
      ++refused;
      REQUIRE(std::string(error.what()).starts_with(path.string()));
    }
  }
  CHECK(refused > 1000);
}

TEST_CASE("safetensors: with checksums no altered byte gets through") {
  const TemporaryFolder folder;
  const auto path = folder / "x.safetensors";
  std::vector<float> values(600000);  // more than two blocks
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
  SafetensorsWriter writer(path, {{"w", DType::f32, {600000}}});
  writer.write(view(values));
  writer.finish();
  const auto sums = writer.file().checksums();
  REQUIRE(sums.size() == 3);
  const std::string good = slurp(path);
  std::mt19937 random(3);
  for (int round = 0; round < 40; ++round) {
    const bool harmless = round % 4 == 0;
    std::string bytes = good;
    const std::size_t at = random() % bytes.size();
    if (!harmless) bytes[at] = static_cast<char>(bytes[at] ^ (1 << random() % 8));
    spill(path, bytes);
    std::vector<float> read(values.size());
    const auto open_and_read = [&] {
      InputFile input(path);
      input.require_checksums(sums);
      SafetensorsFile(std::move(input)).read("w", 0, view(read));
    };
    if (harmless) {
      open_and_read();
      CHECK(read == values);
    } else {
      CHECK_THROWS_AS(open_and_read(), CorruptCheckpoint);
    }
  }
  InputFile input(path);
  CHECK_THROWS_AS(input.require_checksums({1, 2}), CorruptCheckpoint);
}

TEST_CASE("safetensors: an unfinished or failing write leaves the file before it") {
  const TemporaryFolder folder;
  const auto path = folder / "x.safetensors";
  write_sample(path);
  const std::string good = slurp(path);
  {
    SafetensorsWriter writer(path, {{"a", DType::f32, {2}}});
    std::vector<float> one{1};
    writer.write(view(one));
    CHECK_THROWS_WITH_AS(writer.finish(),
                         (path.string() + ": tensor 'a' has 1 of 2 elements").c_str(),
                         InvalidArgument);
    std::vector<float> two{1, 2};
    CHECK_THROWS_AS(writer.write(view(two)), InvalidArgument);
  }
  CHECK(slurp(path) == good);
  CHECK(std::distance(std::filesystem::directory_iterator(folder.path), {}) == 1);
  CHECK_THROWS_AS(SafetensorsWriter(folder / "no/such/x", {}), InvalidArgument);
  CHECK_THROWS_AS(SafetensorsWriter(path, {{"a", DType::f32, {1}}, {"a", DType::f32, {1}}}),
                  InvalidArgument);
}
