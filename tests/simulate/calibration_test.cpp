// Calibrations: a fit finds constants that it can know, and what ships holds against what was
// published.
#include "simulate/calibration.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <sstream>

#include "ashlar/error.hpp"
#include "simulate/published.hpp"
#include "simulate/shipped.hpp"

namespace ashlar::simulate {
namespace {

const std::string kLlmFoundry = published("llm_foundry_fsdp_dev.csv");
const std::string kMegatron = published("megatron_sc21_table2_zero3.csv");
const doctest::skip kWithLlmFoundry(kLlmFoundry.empty());
const doctest::skip kWithMegatron(kMegatron.empty());

Measurement run_of(std::int64_t layers, std::int64_t width, std::int64_t sequence,
                   std::int64_t micro_batch, bool recompute, int ranks = 8) {
  Measurement m;
  m.row_id = std::to_string(layers * width + sequence);
  m.layers = layers;
  m.width = width;
  m.heads = width / 64;
  m.vocabulary = 50368;
  m.sequence = sequence;
  m.ranks = ranks;
  m.gpu = "a100_80gb";
  m.f32_parameters = true;
  m.recompute = recompute;
  m.micro_batch = micro_batch;
  m.accumulate = 2;
  return m;
}

Calibration priors() {
  Calibration priors;
  priors.clusters.emplace("a100_80gb", cluster("dgx-a100"));
  return priors;
}

}  // namespace

TEST_CASE("calibration: a fit recovers the constants that measurements were made with") {
  std::vector<Measurement> runs{run_of(4, 4096, 2048, 8, true), run_of(4, 1024, 32768, 1, false),
                                run_of(4, 2048, 2048, 1, false), run_of(4, 512, 1024, 16, false),
                                run_of(2, 4096, 1024, 1, true)};
  Calibration truth = priors();
  truth.software.traffic_scale = 2.6;
  Cluster& device = truth.clusters.at("a100_80gb");
  device.device.product_efficiency = 0.71;
  device.device.attention_efficiency = 0.4;
  device.overlap_slowdown = 0.35;
  std::vector<CompiledStep> steps;
  for (Measurement& run : runs) {
    steps.push_back(compile_measured(run));
    run.tokens_per_second = predicted_tokens_per_second(run, steps.back(), truth);
  }
  const Calibration found = fit(priors(), runs, steps);
  CHECK(found.software.traffic_scale == doctest::Approx(2.6).epsilon(0.02));
  const Cluster& c = found.clusters.at("a100_80gb");
  CHECK(c.device.product_efficiency == doctest::Approx(0.71).epsilon(0.01));
  CHECK(c.device.attention_efficiency == doctest::Approx(0.4).epsilon(0.02));
  CHECK(c.overlap_slowdown == doctest::Approx(0.35).epsilon(0.1));
  CHECK(found.rows.size() == runs.size());
  for (std::size_t r = 0; r < runs.size(); ++r)
    CHECK(predicted_tokens_per_second(runs[r], steps[r], found) ==
          doctest::Approx(runs[r].tokens_per_second).epsilon(0.01));  // priors pull less
}

TEST_CASE("calibration: its clusters are clusters by their device") {
  const Cluster fitted = cluster_or_calibrated("llm-foundry-calibration:a100_80gb");
  CHECK(fitted.device.product_efficiency ==
        calibration("llm-foundry-calibration").clusters.at("a100_80gb").device.product_efficiency);
  CHECK(fitted.device.product_efficiency < cluster("dgx-a100").device.product_efficiency);
  CHECK(cluster_or_calibrated("dgx-a100").name == cluster("dgx-a100").name);
  for (const std::string& name : cluster_names()) CHECK_NOTHROW(cluster_or_calibrated(name));
  CHECK_THROWS_WITH_AS(cluster_or_calibrated("llm-foundry-calibration:b200"),
                       doctest::Contains("a100_40gb, a100_80gb, h100_80gb"), InvalidArgument);
  CHECK_THROWS_AS(cluster_or_calibrated("nowhere:a100_80gb"), InvalidArgument);
}

TEST_CASE("calibration: files are refused by key, mutated ones never worse") {
  const std::string text(shipped_json("llm-foundry-calibration"));
  REQUIRE(!text.empty());
  auto json = nlohmann::json::parse(text);
  json["software"].erase("traffic_scale");
  CHECK_THROWS_WITH_AS(parse_calibration(json.dump(), "c.json"),
                       doctest::Contains("c.json has no number 'traffic_scale'"), InvalidArgument);
  json = nlohmann::json::parse(text);
  json["clusters"]["h100_80gb"]["device"]["launch_ms"] = 1;
  CHECK_THROWS_WITH_AS(parse_calibration(json.dump(), "c.json"),
                       doctest::Contains("cluster h100_80gb has an unknown key"), InvalidArgument);
  CHECK_THROWS_AS(calibration("/nowhere.json"), InvalidArgument);
  std::mt19937 random(8);
  for (int trial = 0; trial < 500; ++trial) {
    std::string broken = text;
    for (auto n = 1 + random() % 4; n > 0; --n)
      broken[random() % broken.size()] = static_cast<char>(random());
    try {
      parse_calibration(broken, "fuzz");
    } catch (const InvalidArgument&) {
    }
  }
}

TEST_CASE("calibration: a device that no cluster describes is named") {
  Measurement run = run_of(1, 512, 1024, 1, false);
  run.gpu = "b200";
  CHECK_THROWS_WITH_AS(predicted_tokens_per_second(run, compile_measured(run), priors()),
                       doctest::Contains("ran on 'b200'"), InvalidArgument);
}

TEST_CASE(
    "calibration: llm-foundry's other bf16 rows, within 5 % in the mean and 2.5 % in the "
    "median, none out of memory" *
    kWithLlmFoundry) {
  const Calibration shipped = calibration("llm-foundry-calibration");
  CHECK(shipped.rows.size() == 12);
  std::vector<double> errors;
  Calibration unfitted;
  for (const char* name : {"dgx-h100", "dgx-a100", "dgx-a100-40gb"}) {
    const Cluster c = cluster(name);
    unfitted.clusters.emplace(c.gpu, c);
  }
  std::vector<Measurement> fitted_to;
  std::vector<CompiledStep> steps;
  for (const Measurement& run : read_measurements(kLlmFoundry)) {
    if (!run.bf16) continue;
    CAPTURE(run.row_id);
    CompiledStep step = compile_measured(run);
    const double error =
        predicted_tokens_per_second(run, step, shipped) / run.tokens_per_second - 1;
    const auto peak = static_cast<double>(step.planned().total);
    CHECK(peak <= shipped.clusters.at(run.gpu).device.memory_bytes);
    double states = 0;
    for (const std::int64_t bytes : step.states.by_category()) states += static_cast<double>(bytes);
    const auto boundaries =
        static_cast<double>(2 * run.layers * run.micro_batch * run.sequence * run.width);
    CHECK(peak >= states + boundaries);
    const bool chosen = std::ranges::find(shipped.rows, run.row_id) != shipped.rows.end();
    if (!chosen) errors.push_back(std::abs(error));
    if (!chosen) continue;
    fitted_to.push_back(run);
    steps.push_back(std::move(step));
  }
  CHECK(errors.size() == 77);
  const Errors found = errors_of(errors);
  MESSAGE("mean " << found.mean << ", median " << found.median << ", maximum " << found.maximum);
  CHECK(found.mean <= 0.05);
  CHECK(found.median <= 0.025);
  // What ships is what the fit finds on the rows that it names.
  const Calibration again = fit(unfitted, fitted_to, steps);
  CHECK(again.software.traffic_scale ==
        doctest::Approx(shipped.software.traffic_scale).epsilon(1e-3));
  for (const auto& [gpu, c] : again.clusters) {
    const Cluster& other = shipped.clusters.at(gpu);
    CHECK(c.device.product_efficiency ==
          doctest::Approx(other.device.product_efficiency).epsilon(1e-3));
    CHECK(c.device.attention_efficiency ==
          doctest::Approx(other.device.attention_efficiency).epsilon(1e-3));
    CHECK(c.overlap_slowdown == doctest::Approx(other.overlap_slowdown).epsilon(1e-3));
  }
}

TEST_CASE("calibration: ZeRO-3 on 384 to 2240 devices within 8 %, flat from 768 to 1536" *
          kWithMegatron) {
  const Calibration shipped = calibration("megatron-zero3-calibration");
  std::ifstream in(kMegatron);
  std::string line;
  std::getline(in, line);
  REQUIRE(
      line.starts_with("scheme,params_B,model_parallel,global_batch,gpus,micro_batch,"
                       "tflops_per_gpu,days_300B_tokens,layers,hidden,seq,step_time_s_derived"));
  std::map<int, double> seconds;
  while (std::getline(in, line)) {
    if (!line.starts_with("ZeRO-3,")) continue;
    std::vector<std::string> fields;
    std::istringstream words(line);
    for (std::string word; std::getline(words, word, ',');) fields.push_back(word);
    Measurement run = run_of(std::stoll(fields[8]), std::stoll(fields[9]), std::stoll(fields[10]),
                             std::stoll(fields[5]), true, std::stoi(fields[4]));
    run.heads = run.layers == 96 ? 96 : 128;
    run.vocabulary = 51200;
    run.f32_parameters = false;
    run.accumulate = 1;
    REQUIRE(run.ranks * run.micro_batch == std::stoll(fields[3]));
    const double tokens = static_cast<double>(std::stoll(fields[3]) * run.sequence);
    const double found = tokens / predicted_tokens_per_second(run, compile_measured(run), shipped);
    const double measured = std::stod(fields[11]);
    MESSAGE(run.ranks << " devices: " << found << " s, published " << measured << " s");
    CHECK(std::abs(found / measured - 1) < 0.08);
    seconds[run.ranks] = found;
  }
  CHECK(seconds.size() == 6);
  CHECK(seconds[1536] == doctest::Approx(seconds[768]).epsilon(0.05));
  CHECK(seconds[384] > 1.15 * seconds[768]);
}

/// Published: micro-batches of 4 did not fit on 560 devices and were run on 640. The plan of this
/// program decides neither way; the margins are printed.
TEST_CASE("calibration: 530B on 560 and 640 devices differ by the shards of their states") {
  const double device = cluster("dgx-a100").device.memory_bytes;
  const std::vector<int> worlds{560, 640};
  std::vector<double> states;
  double parameters = 0, padding = 0;
  for (const int ranks : worlds) {
    Measurement run = run_of(105, 20480, 2048, 4, true, ranks);
    run.heads = 128;
    run.vocabulary = 51200;
    run.accumulate = 1;
    const CompiledStep step = compile_measured(run);
    states.push_back(0);
    for (const std::int64_t bytes : step.states.by_category())
      states.back() += static_cast<double>(bytes);
    parameters = static_cast<double>(step.layout.elements());
    padding += 16 * static_cast<double>(step.layout.padded() - step.layout.elements()) / ranks;
    const auto peak = static_cast<double>(step.planned().total);
    MESSAGE(ranks << " devices: states " << states.back() / 1e9 << " GB, peak " << peak / 1e9
                  << " GB, margin " << (device - peak) / 1e9 << " GB of " << device / 1e9);
  }
  CHECK(parameters > 525e9);
  const double shards = 16 * parameters * (1.0 / 560 - 1.0 / 640);
  CHECK(std::abs(states[0] - states[1] - shards) <= padding + 1e5);  // and the step's scalars
}

}  // namespace ashlar::simulate
