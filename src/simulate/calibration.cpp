#include "simulate/calibration.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <fstream>
#include <numeric>
#include <ranges>
#include <sstream>

#include "ashlar/error.hpp"
#include "ashlar/nn/gpt.hpp"
#include "base/printable.hpp"
#include "simulate/engine.hpp"
#include "simulate/shipped.hpp"

namespace ashlar::simulate {
namespace {

using Json = nlohmann::json;

class Reader {
 public:
  explicit Reader(const std::string& source) : source_(source) {}

  Calibration read(std::string_view text) const {
    const Json json = Json::parse(text, nullptr, false);
    if (!json.is_object()) refuse("is no JSON object");
    Calibration result;
    const Json& software = object(json, "software");
    result.software.traffic_scale = number(software, "traffic_scale", 0.1, 100);
    result.software.logit_bytes = number(software, "logit_bytes", 0, 1000);
    result.software.cast_bytes = number(software, "cast_bytes_per_parameter", 0, 1000);
    const auto overlap = software.find("overlap_reductions");
    if (overlap == software.end() || !overlap->is_boolean())
      refuse("has no 'overlap_reductions' that is true or false");
    result.software.overlap_reductions = overlap->get<bool>();
    for (const auto& [gpu, cluster] : object(json, "clusters").items())
      result.clusters.emplace(gpu, parse_cluster(cluster.dump(), source_ + " cluster " + gpu));
    const auto rows = json.find("rows");
    if (rows == json.end() || !rows->is_array()) refuse("has no array 'rows'");
    for (const Json& row : *rows) {
      if (!row.is_string()) refuse("has a row_id in 'rows' that is no text");
      result.rows.push_back(row.get<std::string>());
    }
    return result;
  }

 private:
  const Json& object(const Json& json, const char* key) const {
    const auto found = json.find(key);
    if (found == json.end() || !found->is_object()) refuse(fmt::format("has no object '{}'", key));
    return *found;
  }
  double number(const Json& json, const char* key, double least, double most) const {
    const auto found = json.find(key);
    if (found == json.end() || !found->is_number()) refuse(fmt::format("has no number '{}'", key));
    const double value = found->get<double>();
    if (!(value >= least && value <= most))
      refuse(fmt::format("'{}' is {}; it lies between {} and {}", key, value, least, most));
    return value;
  }
  [[noreturn]] void refuse(const std::string& why) const {
    throw InvalidArgument(printable(fmt::format("{} {}", source_, why)));
  }

  const std::string& source_;
};

}  // namespace

Calibration parse_calibration(std::string_view json, const std::string& source) {
  return Reader(source).read(json);
}

Calibration calibration(const std::string& name) {
  if (name.ends_with("-calibration") && !shipped_json(name).empty())
    return parse_calibration(shipped_json(name), name);
  std::ifstream in(name);
  if (!in) throw InvalidArgument(printable(fmt::format("{}: {}", name, std::strerror(errno))));
  std::ostringstream text;
  text << in.rdbuf();
  return parse_calibration(text.str(), name);
}

Cluster cluster_or_calibrated(const std::string& name) {
  const std::size_t colon = name.rfind(':');
  if (colon == std::string::npos) return cluster(name);
  const Calibration calibrated = calibration(name.substr(0, colon));
  const auto found = calibrated.clusters.find(name.substr(colon + 1));
  if (found == calibrated.clusters.end())
    throw InvalidArgument(
        printable(fmt::format("{}: the calibration has {}", name,
                              fmt::join(calibrated.clusters | std::views::keys, ", "))));
  Cluster result = found->second;
  result.name += ", calibrated";
  return result;
}

std::vector<std::string> cluster_names() {
  std::vector<std::string> names(shipped_clusters().begin(), shipped_clusters().end());
  const std::string shipped = "llm-foundry-calibration";
  for (const auto& [gpu, cluster] : calibration(shipped).clusters)
    names.push_back(fmt::format("{}:{}", shipped, gpu));
  return names;
}

namespace {

/// What is wrong with a run, with its row.
template <typename F>
auto of_row(const Measurement& run, const F& work) {
  try {
    return work();
  } catch (const InvalidArgument& error) {
    throw InvalidArgument(printable(fmt::format("row {}: {}", run.row_id, error.what())));
  }
}

}  // namespace

CompiledStep compile_measured(const Measurement& run) {
  const GptConfig model{"row " + run.row_id,
                        run.layers,
                        run.heads,
                        run.width,
                        run.sequence,
                        run.vocabulary,
                        run.inner_by_width * run.width,
                        true,
                        1e-5};
  const ModelTrace how{run.micro_batch, run.sequence, DType::bf16, 0, {}};
  TrainConfig config;
  config.zero.stage = 3;
  config.zero.bucket_bytes = 1;  // a unit each
  config.precision = {DType::bf16, DType::bf16};
  config.micro_batches = run.accumulate;
  config.recompute = run.recompute ? Recompute::per_unit : Recompute::none;
  config.clip = 1;
  config.samples = run.micro_batch;
  // Products of an unlisted processor plan no packed weights, which a GPU's do not have.
  return of_row(run, [&] {
    return compile_step([&](Tracer& t) { return gpt_loss(t, model, how); }, config, run.ranks,
                        Backend{"x86_64", 1});
  });
}

double predicted_tokens_per_second(const Measurement& run, const CompiledStep& step,
                                   const Calibration& calibration) {
  const auto found = calibration.clusters.find(run.gpu);
  if (found == calibration.clusters.end()) {
    throw InvalidArgument(printable(fmt::format(
        "row {} ran on '{}', which no cluster names as its 'gpu'", run.row_id, run.gpu)));
  }
  const Software& software = calibration.software;
  Pricing pricing;
  pricing.algorithm = Algorithm::ring;
  pricing.traffic_scale = software.traffic_scale;
  pricing.logit_bytes = software.logit_bytes;
  pricing.overlap_reductions = software.overlap_reductions;
  if (run.f32_parameters) {
    pricing.gather_scale = 2;
    pricing.cast_bytes = software.cast_bytes;
  }
  const double seconds = of_row(run, [&] {
    const Workload work =
        price(step.programs[0], run.accumulate, run.ranks, found->second, pricing);
    const RankClass all[] = {{run.ranks, 1}};
    return static_cast<double>(simulate::run(work, all).end) * 1e-12;
  });
  return static_cast<double>(run.ranks * run.micro_batch * run.accumulate * run.sequence) / seconds;
}

Errors errors_of(std::vector<double> absolute) {
  if (absolute.empty()) return {};
  std::ranges::sort(absolute);
  const std::size_t n = absolute.size();
  return {std::accumulate(absolute.begin(), absolute.end(), 0.0) / static_cast<double>(n),
          (absolute[(n - 1) / 2] + absolute[n / 2]) / 2, absolute.back()};
}

}  // namespace ashlar::simulate
