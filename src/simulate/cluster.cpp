#include "simulate/cluster.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <vector>

#include "ashlar/error.hpp"
#include "base/nearest.hpp"
#include "base/printable.hpp"
#include "simulate/shipped.hpp"

namespace ashlar::simulate {
namespace {

using Json = nlohmann::json;

/// One number of the file: where it stands, where it goes, its unit and what hardware can be.
struct Field {
  std::string_view section, key;
  double* target;
  double unit;
  double least, most;
  bool required;
};

std::vector<Field> fields_of(Cluster& c, double& devices, double& multiprocessors) {
  Device& d = c.device;
  constexpr double kTera = 1e12, kGiga = 1e9, kMicro = 1e-6;
  return {
      {"device", "peak_16bit_tflops", &d.peak_flops, kTera, 1e-3, 1e5, true},
      {"device", "peak_f32_tflops", &d.peak_flops_f32, kTera, 1e-3, 1e5, true},
      {"device", "memory_gib", &d.memory_bytes, 1073741824.0, 0.1, 1e5, true},
      {"device", "memory_gb_per_s", &d.memory_rate, kGiga, 1, 1e6, true},
      {"device", "multiprocessors", &multiprocessors, 1, 0, 1e5, false},
      {"device", "product_efficiency", &d.product_efficiency, 1, 0.01, 1, true},
      {"device", "attention_efficiency", &d.attention_efficiency, 1, 0.01, 1, true},
      {"device", "memory_efficiency", &d.memory_efficiency, 1, 0.01, 1, true},
      {"device", "attention_backward_slowdown", &d.attention_backward_slowdown, 1, 1, 10, false},
      {"device", "launch_us", &d.launch_seconds, kMicro, 0, 1e4, false},
      {"device", "busy_watts", &d.busy_watts, 1, 0, 1e5, false},
      {"device", "idle_watts", &d.idle_watts, 1, 0, 1e5, false},
      {"node", "devices", &devices, 1, 1, 4096, true},
      {"node", "gb_per_s_per_device", &c.node.rate, kGiga, 0.01, 1e5, true},
      {"node", "efficiency", &c.node.efficiency, 1, 0.01, 1, true},
      {"node", "latency_us", &c.node.latency_seconds, kMicro, 0, 1e4, true},
      {"node", "slowest_device", &c.node.slowest, 1, 0.001, 1, false},
      {"network", "gb_per_s_per_node", &c.network.rate, kGiga, 0.01, 1e5, true},
      {"network", "efficiency", &c.network.efficiency, 1, 0.01, 1, true},
      {"network", "latency_us", &c.network.latency_seconds, kMicro, 0, 1e5, true},
      {"network", "oversubscription", &c.oversubscription, 1, 1, 1000, false},
      {"network", "slowest_node", &c.network.slowest, 1, 0.001, 1, false},
      {"host", "gb_per_s_per_device", &c.host.rate, kGiga, 0.01, 1e5, false},
      {"host", "efficiency", &c.host.efficiency, 1, 0.01, 1, false},
      {"host", "latency_us", &c.host.latency_seconds, kMicro, 0, 1e4, false},
      {"overlap", "slowdown", &c.overlap_slowdown, 1, 0, 10, false}};
}

class Reader {
 public:
  Reader(std::string_view json, const std::string& source) : source_(source) {
    root_ = Json::parse(json, nullptr, false);
    if (root_.is_discarded()) refuse("is no JSON");
    if (!root_.is_object()) refuse("is no JSON object");
  }

  Cluster read() {
    cluster_.name = text(root_, "name");
    if (root_.contains("gpu")) cluster_.gpu = text(root_, "gpu");
    double devices = 1, multiprocessors = 0;
    const auto fields = fields_of(cluster_, devices, multiprocessors);
    for (const Field& field : fields) read(field);
    cluster_.device.name = text(section("device", true), "name");
    if (devices != std::floor(devices)) refuse("node.devices is no whole number");
    if (multiprocessors != std::floor(multiprocessors))
      refuse("device.multiprocessors is no whole number");
    cluster_.devices_per_node = static_cast<int>(devices);
    cluster_.device.multiprocessors = static_cast<int>(multiprocessors);
    refuse_strangers(fields);
    return cluster_;
  }

 private:
  const Json& section(std::string_view name, bool required) const {
    static const Json kEmpty = Json::object();
    const auto found = root_.find(name);
    if (found == root_.end()) {
      if (required) refuse(fmt::format("has no '{}'", name));
      return kEmpty;
    }
    if (!found->is_object()) refuse(fmt::format("'{}' is no object", name));
    return *found;
  }

  std::string text(const Json& json, const char* key) const {
    const auto found = json.find(key);
    if (found == json.end() || !found->is_string()) refuse(fmt::format("has no '{}' as text", key));
    return found->get<std::string>();
  }

  void read(const Field& field) const {
    const Json& json = section(field.section, field.required);
    const auto found = json.find(field.key);
    if (found == json.end()) {
      if (field.required) refuse(fmt::format("has no '{}.{}'", field.section, field.key));
      return;
    }
    if (!found->is_number()) refuse(fmt::format("'{}.{}' is no number", field.section, field.key));
    const double value = found->get<double>();
    if (!(value >= field.least && value <= field.most)) {
      refuse(fmt::format("'{}.{}' is {}; it lies between {} and {} (is the unit right?)",
                         field.section, field.key, value, field.least, field.most));
    }
    *field.target = value * field.unit;
  }

  void refuse_strangers(const std::vector<Field>& fields) const {
    for (const auto& [name, value] : root_.items()) {
      if (name == "name" || name == "gpu" || name == "sources" || name == "notes" ||
          name == "$schema")
        continue;
      std::vector<std::string> keys;
      for (const Field& field : fields) {
        if (field.section == name) keys.emplace_back(field.key);
      }
      if (keys.empty()) {
        static const std::vector<std::string> kSections{"device", "node", "network", "host",
                                                        "overlap"};
        refuse(fmt::format("has an unknown key '{:.64}'; {}", name,
                           suggestion(name.substr(0, 64), kSections)));
      }
      if (!value.is_object()) refuse(fmt::format("'{}' is no object", name));
      for (const auto& [key, number] : value.items()) {
        if (key == "name" || std::ranges::find(keys, key) != keys.end()) continue;
        refuse(fmt::format("has an unknown key '{}.{:.64}' (units are part of keys); {}", name, key,
                           suggestion(key.substr(0, 64), keys)));
      }
    }
  }

  [[noreturn]] void refuse(const std::string& why) const {
    throw InvalidArgument(printable(fmt::format("{} {}", source_, why)));
  }

  const std::string& source_;
  Json root_;
  Cluster cluster_;
};

}  // namespace

Cluster parse_cluster(std::string_view json, const std::string& source) {
  return Reader(json, source).read();
}

std::span<const std::string_view> shipped_clusters() { return shipped_names(); }

std::string cluster_json(const std::string& name) {
  if (const auto json = shipped_json(name); !json.empty()) return std::string(json);
  std::ifstream in(name);
  if (!in && name.ends_with(".json")) {
    const std::string stem = name.substr(0, name.size() - 5);
    if (const auto json = shipped_json(stem); !json.empty()) return std::string(json);
  }
  if (!in) {
    const std::vector<std::string> names(shipped_names().begin(), shipped_names().end());
    throw InvalidArgument(printable(
        fmt::format("{}: {}; it is neither a file nor a cluster that comes with ashlar: {}", name,
                    std::strerror(errno), suggestion(name.substr(0, 64), names))));
  }
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

Cluster cluster(const std::string& name) { return parse_cluster(cluster_json(name), name); }

}  // namespace ashlar::simulate
