// AdamW on a GPU against the rate of a copy on it: one launch over all parameters, f32 alone and
// with bf16 copies of the parameters. Prints one JSON object with all samples. Flags: --parameters
// N (1e9), --rounds R (20).
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "ashlar/buffer.hpp"
#include "ashlar/device_memory.hpp"
#include "ashlar/run_main.hpp"
#include "cuda/kernels.hpp"
#include "gpu/device_timing.hpp"
#include "hardware.hpp"
#include "sharding/collective_ops.hpp"
#include "timing.hpp"

namespace {

using namespace ashlar;
using nlohmann::ordered_json;

ordered_json row(const std::string& name, double bytes, const std::vector<double>& seconds) {
  const double middle = perf::median(seconds);
  return {{"name", name},
          {"bytes", bytes},
          {"median_seconds", middle},
          {"bytes_per_s", bytes / middle},
          {"seconds", seconds}};
}

/// Device memory of one kind per vector that the update reads or writes.
struct Vectors {
  Vectors(MemoryResource& memory, StreamRef stream, std::int64_t n) {
    for (Buffer& buffer : f32) buffer = Buffer(memory, 4 * n, Category::optimizer_state, stream);
    bf16 = Buffer(memory, 2 * n, Category::parameter, stream);
    for (const Buffer& buffer : f32) fill_async(buffer.data(), 0, buffer.bytes(), stream);
  }
  Buffer f32[4];  // gradient, master, m, v
  Buffer bf16;
};

/// As a step's update: one launch over 16 flats, half of whose elements decay.
void update(const Vectors& vectors, StreamRef stream, std::int64_t n, bool narrow) {
  constexpr std::int64_t kFlats = 16;
  std::vector<TensorView> inputs, outputs;
  std::vector<std::int64_t> segments;
  for (std::int64_t f = 0; f < kFlats; ++f) {
    const std::int64_t begin = n * f / kFlats / 64 * 64;
    const std::int64_t end = f + 1 < kFlats ? n * (f + 1) / kFlats / 64 * 64 : n;
    const std::int64_t middle = (begin + end) / 2;
    const auto part = [&](const Buffer& buffer, DType dtype) {
      return buffer.view(dtype, {n}).flat_slice(begin, end - begin);
    };
    inputs.push_back(part(vectors.f32[0], DType::f32));
    for (int i = 1; i < 4; ++i) outputs.push_back(part(vectors.f32[i], DType::f32));
    if (narrow) outputs.push_back(part(vectors.bf16, DType::bf16));
    segments.insert(segments.end(), {begin, middle, 1, middle, end, 0});
  }
  inputs.emplace_back();  // gradients as they are
  inputs.insert(inputs.end(), outputs.begin(), outputs.end());
  RunContext context;
  context.stream = stream;
  context.step = 10;
  context.learning_rate = 1e-3;
  const Attributes attributes =
      update_attributes(AdamW{0, 0.9, 0.95, 1e-8, 0.1, 0}, kFlats, segments, false);
  cuda::update(
      {.context = context, .attributes = attributes, .inputs = inputs, .outputs = outputs});
}

ordered_json measure(Device device, std::int64_t n, int rounds) {
  const auto pages = device_pages(device);
  CachingResource memory(*pages);
  ordered_json rows = ordered_json::array();
  {
    const Stream stream(device);
    const Vectors vectors(memory, stream, n);
    const auto time = [&](const std::string& name, std::int64_t bytes_each, const auto& work) {
      rows.push_back(row(name, static_cast<double>(bytes_each * n),
                         perf::device_seconds(stream, 3, rounds, work)));
    };
    time("copy", 8,
         [&] { copy_async(vectors.f32[0].data(), vectors.f32[1].data(), 4 * n, stream); });
    time("adamw f32", 28, [&] { update(vectors, stream, n, false); });
    time("adamw f32 with bf16 parameters", 30, [&] { update(vectors, stream, n, true); });
    StreamRef(stream).synchronize();
  }
  for (ordered_json& r : rows)
    r["of_copy"] = r["bytes_per_s"].get<double>() / rows[0]["bytes_per_s"].get<double>();
  return rows;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("AdamW on a GPU against the rate of a copy");
  std::int64_t parameters = 1'000'000'000;
  int rounds = 20;
  app.add_option("--parameters", parameters)->check(CLI::PositiveNumber);
  app.add_option("--rounds", rounds)->check(CLI::PositiveNumber);
  CLI11_PARSE(app, argc, argv);
  return run_main("perf_gpu_adamw", [&] {
    const Device device = parse_device("cuda");
    const ordered_json report{{"benchmark", "adamw on a GPU"},
                              {"commit", ASHLAR_COMMIT},
                              {"parameters", parameters},
                              {"results", measure(device, parameters, rounds)}};
    fmt::print("{}\n", report.dump());
    return 0;
  });
}
