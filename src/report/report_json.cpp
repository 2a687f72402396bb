#include "report/step_report.hpp"

namespace ashlar {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t kMostTensors = 10;

Json by_category(const PerCategory<std::int64_t>& bytes) {
  Json object = Json::object();
  for (int c = 0; c < kCategories; ++c)
    object[std::string(name_of(static_cast<Category>(c)))] = bytes[static_cast<std::size_t>(c)];
  return object;
}

Json holders(const Footprint& f) {
  Json list = Json::array();
  for (std::size_t i = 0; i < std::min(kMostTensors, f.at_peak.size()); ++i) {
    const PlannedBlock& block = f.at_peak[i];
    list.push_back(
        {{"name", block.name}, {"category", name_of(block.category)}, {"bytes", block.bytes}});
  }
  return list;
}

}  // namespace

Json to_json(const ModelStateBytes& bytes) {
  return {{"parameter", bytes.parameter},
          {"gradient", bytes.gradient},
          {"optimizer_state", bytes.optimizer_state}};
}

Json to_json(const StepReport& report) {
  const Footprint& f = report.footprint;
  Json peak_bytes = by_category(f.peak.peak);
  peak_bytes["total"] = f.peak.total;
  Json at_peak = by_category(f.peak.at_peak);
  at_peak["fragmentation"] = f.peak.fragmentation;
  at_peak["padding"] = f.peak.padding;
  Json sent = Json::object();
  for (int k = 0; k < kTrafficKinds; ++k)
    sent[std::string(name_of(static_cast<Traffic>(k)))] = f.sent[static_cast<std::size_t>(k)];
  return {{"model", report.model},
          {"parameters", f.parameters},
          {"ranks", f.ranks},
          {"shard_group", f.group},
          {"stage", report.stage},
          {"precision", report.precision},
          {"model_state_bytes", to_json(f.model_state)},
          {"peak_bytes", std::move(peak_bytes)},
          {"at_peak", std::move(at_peak)},
          {"peak", {{"op", f.peak_op}, {"index", f.peak_index}, {"tensors", holders(f)}}},
          {"transients", f.transients},
          {"sent_bytes", std::move(sent)},
          {"node", {{"ranks", report.ranks_per_node}, {"bytes", report.node_bytes()}}},
          {"backend", {{"cpu", report.backend.cpu}, {"threads", report.backend.threads}}}};
}

}  // namespace ashlar
