#include "train_gpt/metrics.hpp"

#include <doctest/doctest.h>

#include <fstream>
#include <limits>

#include "ashlar/error.hpp"
#include "support/temporary_folder.hpp"

using namespace train_gpt;
using nlohmann::ordered_json;

namespace {

StepMetrics example() {
  StepMetrics m;
  m.step = 3;
  m.loss = 5.54517746F;
  m.grad_norm = 0.1;
  m.learning_rate = 1.0 / 3;
  m.tokens = 4096;
  m.tokens_per_second = 1e6 / 7;
  m.seconds = {1, 2, 3, 4, 5};
  m.peak = {{1, 2, 3, 4, 5, 6, 7, std::int64_t{1} << 53}, 9};
  m.at_peak = {{10, 20, 30, 40, 50, 60, 70, 80}, 90, 100};
  m.sent = {11, 12, 13, 14, 15};
  return m;
}

std::vector<std::string> keys(const ordered_json& object) {
  std::vector<std::string> names;
  for (const auto& [name, value] : object.items()) names.push_back(name);
  return names;
}

std::string contents(const std::filesystem::path& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

using Names = std::vector<std::string>;
const Names kCategoryNames{"parameter",  "gradient",      "optimizer_state", "gathered_parameter",
                           "activation", "communication", "workspace",       "input"};

Names with(Names names, const Names& more) {
  names.insert(names.end(), more.begin(), more.end());
  return names;
}

}  // namespace

TEST_CASE("metrics: a step's keys and values") {
  const ordered_json line = ordered_json::parse(to_line(example()));
  CHECK(keys(line) == Names{"step", "loss", "loss_bits", "grad_norm", "learning_rate", "tokens",
                            "tokens_per_second", "flops", "replayed", "seconds", "peak_bytes",
                            "at_peak", "sent_bytes"});
  CHECK(keys(line["seconds"]) ==
        Names{"total", "forward", "backward", "communication_exposed", "update"});
  CHECK(keys(line["peak_bytes"]) == with(kCategoryNames, {"total"}));
  CHECK(keys(line["at_peak"]) == with(kCategoryNames, {"fragmentation", "padding"}));
  CHECK(keys(line["sent_bytes"]) ==
        Names{"all_gather", "reduce_scatter", "all_reduce", "broadcast", "other"});
  CHECK(line["step"] == 3);
  CHECK(line["learning_rate"].get<double>() == 1.0 / 3);
  CHECK(line["tokens_per_second"].get<double>() == 1e6 / 7);
  CHECK(line["seconds"].dump() ==
        R"({"total":1.0,"forward":2.0,"backward":3.0,"communication_exposed":4.0,"update":5.0})");
  CHECK(line["peak_bytes"]["input"] == std::int64_t{1} << 53);
  CHECK(line["peak_bytes"]["total"] == 9);
  CHECK(line["at_peak"]["optimizer_state"] == 30);
  CHECK(line["at_peak"]["padding"] == 100);
  CHECK(line["sent_bytes"]["all_reduce"] == 13);
  CHECK(!contains(to_line(example()), "\n"));

  StepMetrics validated = example();
  validated.validation_loss = 1.25;
  CHECK(ordered_json::parse(to_line(validated))["validation_loss"] == 1.25);
}

TEST_CASE("metrics: the loss round-trips and its bits are eight hexadecimal digits") {
  for (const float loss : {5.54517746F, 1e-30F, 0.0F, 3.0F, std::numeric_limits<float>::min()}) {
    StepMetrics m = example();
    m.loss = loss;
    const ordered_json line = ordered_json::parse(to_line(m));
    CHECK(static_cast<float>(line["loss"].get<double>()) == loss);
    const auto bits = line["loss_bits"].get<std::string>();
    CHECK(bits.size() == 8);
    CHECK(std::bit_cast<float>(static_cast<std::uint32_t>(std::stoul(bits, nullptr, 16))) == loss);
  }
  CHECK(ordered_json::parse(to_line(example()))["loss_bits"] == "40b17218");
}

TEST_CASE("metrics: the summary's keys and values") {
  Summary s;
  s.parameters = 124439808;
  s.ranks = 2;
  s.stage = 3;
  s.precision = "bf16";
  s.model_state = {1, 2, 3};
  s.planned_peak.total = 77;
  s.outside_bytes = 5;
  s.peak_resident_bytes = 6;
  s.config = {{"batch", 4}};
  s.hardware = {{"cpu", "x"}};
  const ordered_json line = ordered_json::parse(to_line(s));
  CHECK(keys(line) == Names{"summary"});
  const ordered_json summary = line["summary"];
  CHECK(keys(summary) == Names{"parameters", "ranks", "stage", "precision", "model_state_bytes",
                               "planned_peak_bytes", "outside_bytes", "peak_resident_bytes",
                               "config", "hardware"});
  CHECK(summary["model_state_bytes"].dump() ==
        R"({"parameter":1,"gradient":2,"optimizer_state":3})");
  CHECK(summary["planned_peak_bytes"]["total"] == 77);
  CHECK(summary["config"]["batch"] == 4);
  CHECK(summary["parameters"] == 124439808);
}

TEST_CASE("metrics: every line is in the file when write returns; a resumed run goes on in it") {
  const TemporaryFolder folder;
  const auto path = folder.path / "m.jsonl";
  MetricsFile file(path, std::nullopt);
  file.write("one");
  CHECK(contents(path) == "one\n");
  file.write("two");
  CHECK(contents(path) == "one\ntwo\n");
  MetricsFile(path, 5).write("three");
  CHECK(contents(path) == "one\ntwo\nthree\n");
  MetricsFile(path, std::nullopt).write("new");
  CHECK(contents(path) == "new\n");
  MetricsFile(folder.path / "none.jsonl", 5).write("first");
  CHECK(contents(folder.path / "none.jsonl") == "first\n");
}

TEST_CASE("metrics: resuming drops later steps and a torn last line, nothing else") {
  const TemporaryFolder folder;
  const std::string one = R"({"step":1,"loss":5})", two = R"({"loss":4,"step":2})";
  const std::string summary = R"({"summary":{"step":9}})", note = "# a note, not JSON";
  const std::string kept = one + '\n' + note + '\n' + two + '\n' + summary + '\n';
  const std::string later = R"({"step":3,"loss":3})"
                            "\n"
                            R"({"step":12,"loss":2})"
                            "\n";
  const auto resumed = [&](const std::string& text, std::int64_t step) {
    const auto path = folder.write("m.jsonl", text);
    MetricsFile(path, step).write("next");
    CHECK(std::distance(std::filesystem::directory_iterator(folder.path), {}) == 1);
    return contents(path);
  };
  CHECK(resumed(kept + later, 2) == kept + "next\n");
  CHECK(resumed(kept + later + summary + '\n', 2) == kept + summary + "\nnext\n");
  CHECK(resumed(kept + later + R"({"step":13,"lo)", 2) == kept + "next\n");
  CHECK(resumed(kept + R"({"step":2,"lo)", 2) == kept + "next\n");
  CHECK(resumed(kept + later, 12) == kept + later + "next\n");
  CHECK(resumed(one + '\n' + two, 2) == one + '\n' + two + "\nnext\n");  // only its end is torn
  CHECK(resumed(one + '\n' + two, 1) == one + "\nnext\n");
  CHECK(resumed(later, 0) == "next\n");
  CHECK(resumed("", 3) == "next\n");
}

TEST_CASE("metrics: a link stays a link, and a file that need not be trimmed stays the same one") {
  const TemporaryFolder folder;
  const auto file = folder.write("real.jsonl", R"({"step":1})"
                                               "\n"
                                               R"({"step":2})"
                                               "\n");
  const auto link = folder.path / "link.jsonl", other = folder.path / "other.jsonl";
  std::filesystem::create_symlink("real.jsonl", link);
  MetricsFile(link, 1).write("next");
  CHECK(std::filesystem::is_symlink(link));
  CHECK(contents(file) == "{\"step\":1}\nnext\n");
  std::filesystem::create_hard_link(file, other);
  MetricsFile(link, 1).write("more");
  CHECK(contents(other) == "{\"step\":1}\nnext\nmore\n");
}

TEST_CASE("metrics: a file that cannot be written is named") {
  const auto opened =
      message_of<ashlar::InvalidArgument>([] { MetricsFile("/nowhere/m.jsonl", std::nullopt); });
  CHECK(contains(opened, "--metrics /nowhere/m.jsonl: cannot be written: No such file"));
  MetricsFile full("/dev/full", 3);
  const auto written = message_of<ashlar::InvalidArgument>([&] { full.write("line"); });
  CHECK(contains(written, "/dev/full: cannot be written: No space left"));
}
