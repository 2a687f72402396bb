#include "train_gpt/metrics.hpp"

#include <fmt/format.h>

#include <bit>
#include <cerrno>
#include <cstring>

#include "ashlar/error.hpp"
#include "sharding/file.hpp"

namespace train_gpt {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

Json by_category(const ashlar::PerCategory<std::int64_t>& bytes) {
  Json object = Json::object();
  for (int i = 0; i < ashlar::kCategories; ++i)
    object[std::string(name_of(static_cast<ashlar::Category>(i)))] =
        bytes[static_cast<std::size_t>(i)];
  return object;
}

Json to_json(const PeakBytes& peak) {
  Json object = by_category(peak.category);
  object["total"] = peak.total;
  return object;
}

Json to_json(const AtPeak& at_peak) {
  Json object = by_category(at_peak.category);
  object["fragmentation"] = at_peak.fragmentation;
  object["padding"] = at_peak.padding;
  return object;
}

Json to_json(const ashlar::SentBytes& sent) {
  Json object = Json::object();
  for (int i = 0; i < ashlar::kTrafficKinds; ++i)
    object[std::string(name_of(static_cast<ashlar::Traffic>(i)))] =
        sent[static_cast<std::size_t>(i)];
  return object;
}

/// Whether a line still holds after the run went back to `resumed_step`. What is no step, such as
/// an earlier summary, does.
bool holds(const std::string& line, bool whole, std::int64_t resumed_step) {
  const Json parsed = Json::parse(line, nullptr, false);
  if (parsed.is_discarded()) return whole;
  if (!parsed.is_object() || !parsed.contains("step")) return true;
  const Json& step = parsed["step"];
  return !step.is_number_integer() || step.get<std::int64_t>() <= resumed_step;
}

/// Leaves the file as it is, or replaces it in one step.
void trim(const fs::path& link, std::int64_t resumed_step) {
  if (!fs::is_regular_file(link)) return;  // nothing yet, or a pipe
  const fs::path path = fs::canonical(link);
  std::string kept;
  bool changed = false;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    const bool whole = !file.eof();
    const bool stays = holds(line, whole, resumed_step);
    if (stays) kept += line + '\n';
    changed = changed || !stays || !whole;
  }
  if (file.bad())
    throw ashlar::InvalidArgument(
        fmt::format("--metrics {}: cannot be read: {}", path.string(), std::strerror(errno)));
  if (!changed) return;
  ashlar::OutputFile trimmed(path);
  trimmed.write(kept);
  trimmed.commit();
}

}  // namespace

std::string to_line(const StepMetrics& m) {
  Json line{{"step", m.step},
            {"loss", static_cast<double>(m.loss)},
            {"loss_bits", fmt::format("{:08x}", std::bit_cast<std::uint32_t>(m.loss))}};
  if (m.validation_loss) line["validation_loss"] = *m.validation_loss;
  line["grad_norm"] = m.grad_norm;
  line["learning_rate"] = m.learning_rate;
  line["tokens"] = m.tokens;
  line["tokens_per_second"] = m.tokens_per_second;
  line["flops"] = m.flops;
  line["replayed"] = m.replayed;
  line["seconds"] = {{"total", m.seconds.total},
                     {"forward", m.seconds.forward},
                     {"backward", m.seconds.backward},
                     {"communication_exposed", m.seconds.communication_exposed},
                     {"update", m.seconds.update}};
  line["peak_bytes"] = to_json(m.peak);
  line["at_peak"] = to_json(m.at_peak);
  line["sent_bytes"] = to_json(m.sent);
  return line.dump();
}

std::string to_line(const Summary& s) {
  Json summary{{"parameters", s.parameters},
               {"ranks", s.ranks},
               {"stage", s.stage},
               {"precision", s.precision},
               {"model_state_bytes",
                {{"parameter", s.model_state.parameter},
                 {"gradient", s.model_state.gradient},
                 {"optimizer_state", s.model_state.optimizer_state}}},
               {"planned_peak_bytes", to_json(s.planned_peak)},
               {"outside_bytes", s.outside_bytes},
               {"peak_resident_bytes", s.peak_resident_bytes},
               {"config", s.config},
               {"hardware", s.hardware}};
  if (s.driver_bytes) summary["driver_bytes"] = *s.driver_bytes;
  if (s.attention_engine) summary["attention_engine"] = *s.attention_engine;
  return Json{{"summary", summary}}.dump();
}

MetricsFile::MetricsFile(const std::filesystem::path& path,
                         std::optional<std::int64_t> resumed_step)
    : path_(path) {
  if (resumed_step) trim(path, *resumed_step);
  file_.open(path, resumed_step ? std::ios::app : std::ios::trunc);
  if (!file_)
    throw ashlar::InvalidArgument(
        fmt::format("--metrics {}: cannot be written: {}", path.string(), std::strerror(errno)));
}

void MetricsFile::write(const std::string& line) {
  file_ << line << '\n' << std::flush;
  if (!file_)
    throw ashlar::InvalidArgument(
        fmt::format("--metrics {}: cannot be written: {}; make room or name another file",
                    path_.string(), std::strerror(errno)));
}

}  // namespace train_gpt
