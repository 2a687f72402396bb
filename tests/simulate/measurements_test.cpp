// Files of measurements: read, refused by line and column, never worse.
#include "simulate/measurements.hpp"

#include <doctest/doctest.h>

#include <random>
#include <sstream>

#include "ashlar/error.hpp"

namespace ashlar::simulate {
namespace {

const std::string kHeader =
    "row_id,n_layers,d_model,n_heads,vocab,ffn_mult,seq_len,n_gpus,gpu,precision,mp_mode,sharding,"
    "act_ckpt,act_cpu_offload,micro_batch,grad_accum,tokens_per_s\n";
const std::string kRow =
    "7,2,64,4,1000,4,128,8,a100_80gb,amp_bf16,DEFAULT,FULL_SHARD,True,False,3,2,5e4\n";

std::vector<Measurement> read(const std::string& text) {
  std::istringstream in(text);
  return read_measurements(in, "m.csv");
}

void refuses(const std::string& text, const char* why) {
  CHECK_THROWS_WITH_AS(read(text), doctest::Contains(why), InvalidArgument);
}

void check_read_or_refused(const std::string& text) {
  try {
    for (const Measurement& m : read(text)) {
      CHECK(m.layers >= 1);
      CHECK(m.width % m.heads == 0);
      CHECK(m.ranks >= 1);
      CHECK(m.tokens_per_second > 0);
    }
  } catch (const InvalidArgument& error) {
    const std::string line = error.what();
    CHECK(line.starts_with("m.csv "));
    CHECK(line.find_first_of("\n\r") == std::string::npos);
    CHECK(line.size() < 400);
  }
}

std::string with(const std::string& before, const std::string& after) {
  std::string row = kRow;
  return row.replace(row.find(before), before.size(), after);
}

}  // namespace

TEST_CASE("measurements: a row is read, further columns and carriage returns do not matter") {
  const auto rows = read("note," + kHeader + "\r\n\"a, b\"," + kRow);
  REQUIRE(rows.size() == 1);
  const Measurement& m = rows[0];
  CHECK(m.row_id == "7");
  CHECK(m.layers == 2);
  CHECK(m.width == 64);
  CHECK(m.ranks == 8);
  CHECK(m.gpu == "a100_80gb");
  CHECK(m.bf16);
  CHECK(m.f32_parameters);
  CHECK(m.recompute);
  CHECK(m.accumulate == 2);
  CHECK(m.tokens_per_second == 5e4);
}

TEST_CASE("measurements: what cannot be used is refused by line and column") {
  refuses("", "is empty");
  refuses(kHeader, "no rows");
  refuses("row_id\n1\n", "m.csv has no column 'n_layers'");
  refuses(kHeader + "1,2\n", "line 2 has 2 fields, the header 17");
  refuses(kHeader + kRow + kRow, "line 3 repeats row_id '7'");
  refuses(kHeader + with(",64,", ",sixty,"), "d_model 'sixty', no number");
  refuses(kHeader + with(",64,", ",66,"), "no multiple of n_heads");
  refuses(kHeader + with(",8,a", ",0,a"), "n_gpus 0");
  refuses(kHeader + with("5e4", "-1"), "tokens_per_s");
  refuses(kHeader + with("5e4", "nan"), "tokens_per_s");
  refuses(kHeader + with("FULL_SHARD", "HYBRID"), "sharding 'HYBRID'");
  refuses(kHeader + with("True,False", "True,True"), "act_cpu_offload 'True'");
  CHECK_THROWS_WITH_AS(read_measurements("/nowhere.csv"), doctest::Contains("/nowhere.csv"),
                       InvalidArgument);
}

TEST_CASE("measurements: mutated files are read or refused, never worse") {
  std::mt19937 random(3);
  for (int trial = 0; trial < 3000; ++trial) {
    std::string text = kHeader + kRow;
    for (auto n = 1 + random() % 5; n > 0; --n) {
      const std::size_t at = random() % text.size();
      if (random() % 2 == 0) {
        text[at] = static_cast<char>(random());
      } else {
        text.insert(at, 1, ",\n\"-9e\0\r"[random() % 8]);
      }
    }
    check_read_or_refused(text);
  }
}

TEST_CASE("measurements: any field in any place is read or refused, in one line") {
  std::mt19937 random(4);
  const std::vector<std::string> words{"",
                                       "-1",
                                       "0",
                                       "1e9999",
                                       "9223372036854775808",
                                       "nan",
                                       "0x10",
                                       "\"",
                                       "a,b",
                                       "\"a,b\"",
                                       "\r",
                                       "\t\x1b[2J",
                                       "True",
                                       "inf",
                                       "1.5",
                                       std::string(5000, '9')};
  for (int trial = 0; trial < 3000; ++trial) {
    std::string text = kHeader + kRow + kRow;
    for (auto n = 1 + random() % 3; n > 0; --n) {
      const std::size_t begin = text.find_first_of(",\n", random() % text.size());
      if (begin == std::string::npos) continue;
      const std::size_t end = text.find_first_of(",\n", begin + 1);
      text.replace(begin + 1, end == std::string::npos ? 0 : end - begin - 1,
                   words[random() % words.size()]);
    }
    check_read_or_refused(text);
  }
}

}  // namespace ashlar::simulate
