// ashlar calibrate and ashlar predict as a user runs them.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "cli/program.hpp"
#include "support/temporary_folder.hpp"

using cli::check_refused;

namespace {

using Json = nlohmann::json;

const std::string kAshlar = ASHLAR_PROGRAM;
const std::string kHeader =
    "row_id,n_layers,d_model,n_heads,vocab,ffn_mult,seq_len,n_gpus,gpu,precision,mp_mode,sharding,"
    "act_ckpt,act_cpu_offload,micro_batch,grad_accum,tokens_per_s\n";

std::string row(const std::string& id, int width, int sequence, const char* gpu,
                const char* precision, double tokens) {
  return fmt::format("{},2,{},8,1000,4,{},8,{},{},PURE,FULL_SHARD,False,False,4,2,{}\n", id, width,
                     sequence, gpu, precision, tokens);
}

/// Two devices; row 5 is not in bf16.
std::string measurements() {
  return kHeader + row("1", 512, 512, "a100_80gb", "bf16", 2e6) +
         row("2", 1024, 512, "a100_80gb", "bf16", 9e5) +
         row("3", 512, 1024, "h100_80gb", "amp_bf16", 3e6) +
         row("4", 1024, 1024, "h100_80gb", "amp_bf16", 2e6) +
         row("5", 1024, 1024, "h100_80gb", "amp_fp8", 2e6);
}

}  // namespace

TEST_CASE("calibrate, predict: constants from named rows serve the others") {
  const TemporaryFolder folder;
  const std::string csv = folder.write("m.csv", measurements()).string();
  const std::string out = (folder.path / "c.json").string();
  const Finished fitted =
      run(kAshlar + " calibrate " + csv + " --rows 1,3 --cluster dgx-a100,dgx-h100 --output " +
          out + " --json");
  CAPTURE(fitted.err);
  REQUIRE(fitted.code == 0);
  const Json summary = Json::parse(fitted.out);
  CHECK(summary["constants"].size() == 6);
  CHECK(summary["residual"]["rows"] == 2);
  CHECK(summary["other_rows"]["fitted"]["rows"] == 2);
  CHECK(summary["other_rows"].contains("priors alone"));
  CHECK(summary["other_rows"]["without h100_80gb"]["rows"] == 1);
  CHECK(summary["residual"]["mean_error"].get<double>() <
        summary["other_rows"]["priors alone"]["mean_error"].get<double>());

  const Finished predicted = run(kAshlar + " predict " + csv + " --calibration " + out + " --json");
  CAPTURE(predicted.err);
  REQUIRE(predicted.code == 0);
  const Json json = Json::parse(predicted.out);
  CHECK(json["skipped"] == Json::array({"5"}));
  REQUIRE(json["rows"].size() == 4);
  double sum = 0, most = 0;
  for (const Json& r : json["rows"]) {
    CHECK(r["fits"] == true);
    CHECK(r["peak_bytes"].get<std::int64_t>() > 0);
    const double error = std::abs(
        r["predicted_tokens_per_s"].get<double>() / r["measured_tokens_per_s"].get<double>() - 1);
    CHECK(error == doctest::Approx(std::abs(r["error"].get<double>())));
    CHECK(r["calibrated"] == (r["row_id"] == "1" || r["row_id"] == "3"));
    if (r["calibrated"]) continue;
    sum += error;
    most = std::max(most, error);
  }
  CHECK(json["mean_error"].get<double>() == doctest::Approx(sum / 2));
  CHECK(json["median_error"].get<double>() == doctest::Approx(sum / 2));
  CHECK(json["maximum_error"].get<double>() == doctest::Approx(most));
}

TEST_CASE("calibrate, predict: what cannot be used is refused in one line") {
  const TemporaryFolder folder;
  const std::string csv = folder.write("m.csv", measurements()).string();
  const std::string out = " --output " + (folder.path / "c.json").string();
  const std::string calibrate = kAshlar + " calibrate " + csv + out;
  check_refused(calibrate + " --rows 9 --cluster dgx-a100", "no row_id '9'");
  check_refused(calibrate + " --rows 3 --cluster dgx-a100", "ran on 'h100_80gb'");
  check_refused(calibrate + " --rows 5 --cluster dgx-h100", "not in bf16");
  check_refused(calibrate + " --rows 1,1 --cluster dgx-a100", "twice");
  check_refused(calibrate + " --rows 1 --cluster cpu", "has no 'gpu'");
  check_refused(calibrate + " --rows 1 --cluster dgx-a100,dgx-a100", "two clusters");
  check_refused(kAshlar + " predict /nowhere.csv", "/nowhere.csv");
  std::string odd = measurements();
  odd.replace(odd.find(",8,h100"), 3, ",12,");
  check_refused(kAshlar + " predict " + folder.write("odd.csv", odd).string(),
                "row 3: 12 ranks do not fill nodes of 8");
  check_refused(kAshlar + " predict " + folder.write("n.csv", "row_id\n1\n").string(),
                "no column 'n_layers'");
  check_refused(
      kAshlar + " predict " + csv + " --calibration " + folder.write("c.json", "[]").string(),
      "no JSON object");
}
