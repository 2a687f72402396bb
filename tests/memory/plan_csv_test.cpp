// The reader of minimalloc's files: what it takes, what it refuses, and arbitrary bytes.
#include <doctest/doctest.h>

#include <algorithm>
#include <sstream>

#include "ashlar/error.hpp"
#include "cli/plan_svg.hpp"
#include "memory/plan/csv.hpp"
#include "memory/plan_problems.hpp"
#include "support/temporary_folder.hpp"

using namespace ashlar;

namespace {

plan::Table read(const std::string& text) {
  std::istringstream in(text);
  return plan::read_table(in, "f.csv");
}

/// Some field of some row, the header among them.
void replace_field(std::string& text, std::uint64_t draw, const std::string& with) {
  const std::size_t end = text.find_first_of(",\n", draw % text.size());
  if (end == std::string::npos) return;
  const std::size_t before = end == 0 ? std::string::npos : text.find_last_of(",\n", end - 1);
  const std::size_t begin = before == std::string::npos ? 0 : before + 1;
  text.replace(begin, end - begin, with);
}

void plan_and_draw(const plan::Table& table) {
  PlanOptions few;
  few.node_limit = 20;
  const PlanResult result = solve_memory_plan(table.buffers, few);
  validate(table.buffers, result.plan, 1);
  REQUIRE(result.lower_bound >= maximum_load(table.buffers));
  const std::string svg = cli::plan_svg(table, result, 0, "f.csv");
  REQUIRE(svg.size() < 16'000);
  REQUIRE(svg.ends_with("</svg>\n"));
}

std::string refusal(const std::string& text) {
  return message_of<InvalidArgument>([&] { read(text); });
}

}  // namespace

TEST_CASE("plan csv: columns in any order, further columns, blank lines, carriage returns") {
  const plan::Table table = read("size, note,upper,id,lower\r\n4,x,3,b1,0\r\n\r\n5,,9, b 2 ,-3");
  REQUIRE(table.ids == std::vector<std::string>{"b1", "b 2"});
  CHECK(table.buffers[0].upper == 3);
  CHECK(table.buffers[1].lower == -3);
  CHECK(table.buffers[1].size == 5);
  std::ostringstream out;
  plan::write_table(out, table, std::vector<std::int64_t>{8, 0});
  CHECK(out.str() == "id,lower,upper,size,offset\nb1,0,3,4,8\nb 2,-3,9,5,0\n");
}

TEST_CASE("plan csv: what is wrong, and where") {
  const std::string header = "id,lower,upper,size\n";
  const std::vector<std::pair<std::string, std::string>> cases{
      {"", "f.csv is empty"},
      {"id,lower,upper\n", "line 1 has no column 'size'"},
      {"id,lower,upper,size,size\n", "line 1 has the column 'size' twice"},
      {header + "a,0,1\n", "line 2 has 3 fields, the header 4"},
      {header + "a,0,1,2,3\n", "line 2 has 5 fields, the header 4"},
      {header + "a,0,x,2\n", "line 2 has upper 'x', not an integer"},
      {header + "a,0,1.5,2\n", "line 2 has upper '1.5', not an integer"},
      {header + "a,0,1,99999999999999999999\n", "line 2 has size '99999999999999999999', beyond"},
      {header + ",0,1,2\n", "line 2 has an empty id"},
      {header + "a,0,1,2\n\na,0,1,2\n", "line 4 repeats the id 'a' of line 2"},
      {header + "a,0,1,-2\n", "line 2 has a negative size, -2"},
      {header + "a,3,3,2\n", "line 2 has upper 3 not above lower 3"}};
  for (const auto& [text, message] : cases) {
    CAPTURE(text);
    CAPTURE(refusal(text));
    CHECK(contains(refusal(text), message));
  }
}

TEST_CASE("plan csv: arbitrary edits are read, planned and drawn, or refused in one line") {
  std::mt19937_64 random(4);
  const std::string alphabet = std::string("0123456789,,,\n\n-.axid\r \"") + '\0' + '\xff';
  const std::vector<std::string> extremes{"9223372036854775807",
                                          "9223372036854775806",
                                          "9223372036854775808",
                                          "-9223372036854775808",
                                          "-9223372036854775807",
                                          "4611686018427387904",
                                          "4611686018427387903",
                                          "nan",
                                          "inf",
                                          "-0",
                                          "+1",
                                          "1e3",
                                          "7\r7",
                                          "\r"};
  int refused = 0, drawn = 0;
  for (int round = 0; round < 4000; ++round) {
    std::string text = "id,lower,upper,size\nb1,0,3,4\nb2,3,9,4\nb3,0,9,4\n";
    for (auto edits = plan_problems::uniform(random, 0, 2); edits > 0; --edits)
      replace_field(text, random(), extremes[random() % extremes.size()]);
    for (auto edits = plan_problems::uniform(random, 0, 4); edits > 0; --edits) {
      const auto at = static_cast<std::size_t>(random() % (text.size() + 1));
      const char c = alphabet[random() % alphabet.size()];
      switch (random() % 3) {
        case 0:
          text.insert(at, 1, c);
          break;
        case 1:
          text.erase(at, random() % 4);
          break;
        default:
          if (at < text.size()) text[at] = c;
      }
    }
    try {
      const plan::Table table = read(text);
      REQUIRE(table.ids.size() == table.buffers.size());
      for (const PlannedBuffer& b : table.buffers) REQUIRE((b.lower < b.upper && b.size >= 0));
      plan_and_draw(table);
      ++drawn;
    } catch (const InvalidArgument& error) {
      ++refused;
      const std::string said = error.what();
      CHECK((said.starts_with("f.csv") || said.starts_with("memory plan: ")));
      CHECK(std::ranges::none_of(said, [](char c) { return c >= 0 && c < ' '; }));
    }
  }
  CHECK(refused > 1000);
  CHECK(drawn > 500);
}
