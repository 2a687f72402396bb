// Cluster files: those that ship are read, everything wrong is refused with its key.
#include "simulate/cluster.hpp"

#include <doctest/doctest.h>

#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "ashlar/error.hpp"
#include "simulate/shipped.hpp"

namespace ashlar::simulate {
namespace {

using Json = nlohmann::json;

Json a100() { return Json::parse(shipped_json("dgx-a100")); }

void refuses(const Json& json, const char* why) {
  CHECK_THROWS_WITH_AS(parse_cluster(json.dump(), "a.json"), doctest::Contains(why),
                       InvalidArgument);
}

void check_read_or_refused(const std::string& text) {
  try {
    const Cluster c = parse_cluster(text, "fuzz");
    CHECK(c.devices_per_node >= 1);
    CHECK(c.node.effective_rate() > 0);
    CHECK(c.network_rate() > 0);
  } catch (const InvalidArgument& error) {
    const std::string line = error.what();
    CHECK(line.starts_with("fuzz "));
    CHECK(line.find('\n') == std::string::npos);
    CHECK(line.size() < 400);
  }
}

}  // namespace

TEST_CASE("cluster: every file that ships is read, and each of its numbers has a source") {
  CHECK(shipped_clusters().size() >= 4);
  for (const std::string_view name : shipped_clusters()) {
    CAPTURE(std::string(name));
    const Cluster c = cluster(std::string(name));
    CHECK(c.device.peak_flops > 1e12);
    CHECK(c.devices_per_node >= 1);
    CHECK(cluster_json(std::string(name) + ".json") == shipped_json(name));
    const Json json = Json::parse(shipped_json(name));
    for (const char* section : {"device", "node", "network", "overlap"}) {
      if (!json.contains(section)) continue;
      for (const auto& [key, value] : json[section].items()) {
        const bool cited = json["sources"].contains(section) ||
                           json["sources"].contains(std::string(section) + "." + key);
        CHECK((cited || key == "name"));
      }
    }
  }
}

TEST_CASE("cluster: units are converted") {
  const Cluster c = cluster("dgx-a100");
  CHECK(c.device.peak_flops == 312e12);
  CHECK(c.device.memory_bytes == 80.0 * (1 << 30));
  CHECK(c.network.rate == 200e9);
  CHECK(c.node.latency_seconds == doctest::Approx(2.5e-6));
}

TEST_CASE("cluster: what is missing, misspelt or in another unit is refused by name") {
  Json json = a100();
  json["device"].erase("memory_gib");
  refuses(json, "has no 'device.memory_gib'");
  json["device"]["memory_gb"] = 80;
  json["device"]["memory_gib"] = 80;
  refuses(json,
          "unknown key 'device.memory_gb' (units are part of keys); did you mean memory_gb_per_s "
          "or memory_gib?");
  json = a100();
  json["node"]["latency_us"] = -1;
  refuses(json, "'node.latency_us' is -1");
  json = a100();
  json["device"]["product_efficiency"] = 86;
  refuses(json, "is the unit right?");
  json = a100();
  json["node"]["devices"] = 2.5;
  refuses(json, "whole number");
  json = a100();
  json["netwerk"] = Json::object();
  refuses(json, "did you mean network");
  json = a100();
  json["device"] = 3;
  refuses(json, "'device' is no object");
  CHECK_THROWS_WITH_AS(parse_cluster("{", "a.json"), doctest::Contains("a.json is no JSON"),
                       InvalidArgument);
  CHECK_THROWS_WITH_AS(cluster("dgx-a10"), doctest::Contains("did you mean dgx-a100"),
                       InvalidArgument);
}

TEST_CASE("cluster: mutated files are read or refused, never worse") {
  std::mt19937 random(5);
  const std::string text(shipped_json("dgx-h100"));
  for (int trial = 0; trial < 3000; ++trial) {
    std::string broken = text;
    for (auto n = 1 + random() % 4; n > 0; --n) {
      const std::size_t at = random() % broken.size();
      switch (random() % 3) {
        case 0:
          broken[at] = static_cast<char>(random());
          break;
        case 1:
          broken.erase(at, 1 + random() % 40);
          break;
        default:
          broken.insert(at, 1, "{}[]\",:0-e"[random() % 10]);
      }
      if (broken.empty()) broken = " ";
    }
    check_read_or_refused(broken);
  }
}

TEST_CASE("cluster: any value in any place is read or refused, in one line") {
  std::mt19937 random(6);
  const std::vector<Json> values{Json(),
                                 true,
                                 -1,
                                 0,
                                 1e308,
                                 -1e-308,
                                 1ULL << 63,
                                 "",
                                 "a\nb\r",
                                 std::string(999, 'x'),
                                 {1, 2},
                                 Json::array(),
                                 Json::object(),
                                 {{"name", 3}}};
  for (const std::string_view name : shipped_clusters()) {
    const Json good = Json::parse(shipped_json(name)), flat = good.flatten();
    std::vector<std::string> places;
    for (const auto& [place, value] : flat.items()) places.push_back(place);
    for (int trial = 0; trial < 300; ++trial) {
      Json json = good;
      for (auto n = 1 + random() % 2; n > 0; --n) {
        Json::json_pointer place(places[random() % places.size()]);
        if (random() % 3 == 0) place = place.parent_pointer();
        if (random() % 4 == 0) place /= "a\nkey";
        try {
          json[place] = values[random() % values.size()];
        } catch (const Json::exception&) {  // the place is no more
        }
      }
      check_read_or_refused(json.dump());
    }
  }
  check_read_or_refused(std::string(1'000'000, '['));
  check_read_or_refused("{\"name\":" + std::string(500'000, '[') + std::string(500'000, ']') + "}");
}

}  // namespace ashlar::simulate
