// The products of GPT-2's steps on a GPU: cuBLASLt's first heuristics for each, timed on resident
// operands, and the lines of cuda/cublaslt_table.cpp. Prints a JSON object per product. Flags:
// --candidates N (8), --rounds R (10), --peak-tflops (of the GPU in bf16, dense).
#include "cuda/products.hpp"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <array>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "ashlar/buffer.hpp"
#include "ashlar/device_memory.hpp"
#include "ashlar/nn/language_model.hpp"
#include "ashlar/run_main.hpp"
#include "gpu/candidates.hpp"
#include "gpu/device_timing.hpp"
#include "hardware.hpp"
#include "ops/cuda_backend.hpp"
#include "sharding/compile_step.hpp"
#include "timing.hpp"

namespace {

using namespace ashlar;
using nlohmann::ordered_json;

struct Step {
  std::string model;
  std::int64_t sequences;
};
const std::array kSteps = {Step{"gpt2", 16}, Step{"gpt2-xl", 8}};
constexpr std::int64_t kPositions = 1024;

struct Settings {
  int candidates = 8, rounds = 10;
  double peak_tflops = 0;
};

/// Of a step in bf16 on one rank.
std::vector<cuda::Product> products_of(const Step& step, int sm) {
  const LanguageModel model = language_model(step.model);
  TrainConfig config;
  config.zero.stage = 0;
  config.precision = {DType::bf16, DType::bf16};
  config.clip = 1;
  config.samples = step.sequences;
  const ModelTrace how{step.sequences, kPositions, DType::bf16, 0, {}};
  return cuda::products_of(
      compile_step([&](Tracer& t) { return model.loss(t, how); }, config, 1, cuda_backend(1, sm))
          .programs);
}

/// Operands of a product, random and on the device.
class Operands {
 public:
  Operands(MemoryResource& memory, StreamRef stream, const cuda::Product& p) : p_(p) {
    const Gemm& g = p.gemm;
    const auto bytes = [&](std::int64_t stride, std::int64_t rows, std::int64_t row, DType type) {
      return ((p.batch - 1) * stride + rows * row + 1) * size_of(type);
    };
    a_ = random(memory, stream, bytes(p.stride_a, g.transpose_a ? g.k : g.m, g.lda, g.dtype));
    b_ = random(memory, stream, bytes(p.stride_b, g.transpose_b ? g.n : g.k, g.ldb, g.dtype));
    c_ = random(memory, stream, bytes(p.stride_c, g.m, g.ldc, g.result));
    bias_ = random(memory, stream, g.n * size_of(g.dtype));
    bias_gradient_ = random(memory, stream, g.n * size_of(g.result));
    h_ = random(memory, stream, g.m * g.n * size_of(g.result));
    workspace_ = Buffer(memory, cuda::kProductWorkspace, Category::activation, stream);
    stream.synchronize();
  }

  void multiply(const cuda::CublasLt& library, StreamRef stream) const {
    const std::int64_t shift = p_.aligned ? 0 : size_of(p_.gemm.dtype);
    const bool done =
        library.multiply(p_,
                         {.a = a_.data() + shift,
                          .b = b_.data() + shift,
                          .bias = bias_.data(),
                          .c = c_.data() + (p_.aligned ? 0 : size_of(p_.gemm.result)),
                          .bias_gradient = bias_gradient_.data(),
                          .h = h_.data()},
                         workspace_.data(), static_cast<cudaStream_t>(cuda::native_stream(stream)));
    if (!done) throw CudaError("the library has no algorithm");
  }

 private:
  /// Of bf16 or f32 alike: 16-bit words of either sign from 1/128 to 2.
  static Buffer random(MemoryResource& memory, StreamRef stream, std::int64_t bytes) {
    static const std::vector<std::uint16_t> words = [] {
      std::mt19937 generator(7);
      std::vector<std::uint16_t> all(std::size_t{1} << 22);
      for (std::uint16_t& word : all)
        word = static_cast<std::uint16_t>((generator() & 0x83ff) | 0x3c00);
      return all;
    }();
    Buffer buffer(memory, bytes, Category::activation, stream);
    const auto piece = static_cast<std::int64_t>(words.size() * sizeof words[0]);
    for (std::int64_t at = 0; at < bytes; at += piece)
      copy_async(buffer.data() + at, words.data(), std::min(piece, bytes - at), stream);
    return buffer;
  }

  cuda::Product p_;
  Buffer a_, b_, c_, bias_, bias_gradient_, h_, workspace_;
};

ordered_json describe(const cuda::Product& p, const std::vector<perf::Candidate>& timed,
                      double peak_tflops) {
  if (timed.empty()) return {{"product", cuda::describe(p)}, {"supported", false}};
  const double flops =
      2.0 * static_cast<double>(p.batch * p.gemm.m) * static_cast<double>(p.gemm.n * p.gemm.k);
  const auto row = [&](double seconds) {
    ordered_json of{{"us", 1e6 * seconds}, {"tflops", 1e-12 * flops / seconds}};
    if (peak_tflops > 0) of["of_peak"] = 1e-12 * flops / seconds / peak_tflops;
    return of;
  };
  const perf::Candidate& best = perf::best_of(timed);
  ordered_json all = ordered_json::array();
  for (const perf::Candidate& candidate : timed) all.push_back(1e6 * candidate.seconds);
  return {{"product", cuda::describe(p)},    {"first", row(timed.front().seconds)},
          {"best", row(best.seconds)},       {"best_index", &best - timed.data()},
          {"candidates_us", std::move(all)}, {"table_line", cuda::table_line(best.entry)}};
}

void measure(Device device, const Settings& settings) {
  const int sm = compute_capability(device);
  const cuda::CublasLtLibrary& library = cuda::CublasLtLibrary::installed();
  const auto pages = device_pages(device);
  CachingResource memory(*pages);
  const Stream stream(device);
  for (const Step& step : kSteps) {
    for (const cuda::Product& product : products_of(step, sm)) {
      const Operands operands(memory, stream, product);
      const auto time = [&](const cuda::CublasLt& only) {
        return perf::median(perf::device_seconds(stream, 2, settings.rounds,
                                                 [&] { operands.multiply(only, stream); }));
      };
      ordered_json line{{"benchmark", "products on a GPU"},
                        {"commit", ASHLAR_COMMIT},
                        {"sm", sm},
                        {"cublaslt", library.get_version()},
                        {"model", step.model},
                        {"sequences", step.sequences},
                        {"positions", kPositions},
                        {"peak_tflops", settings.peak_tflops}};
      line.update(describe(product,
                           perf::time_candidates(library, sm, product, settings.candidates, time),
                           settings.peak_tflops));
      fmt::print("{}\n", line.dump());
      std::fflush(stdout);
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("The products of GPT-2's steps on a GPU, by each of cuBLASLt's heuristics");
  Settings settings;
  app.add_option("--candidates", settings.candidates)->check(CLI::PositiveNumber);
  app.add_option("--rounds", settings.rounds)->check(CLI::PositiveNumber);
  app.add_option("--peak-tflops", settings.peak_tflops)->check(CLI::PositiveNumber);
  CLI11_PARSE(app, argc, argv);
  return run_main("perf_gpu_products", [&] {
    const Device device = parse_device("cuda");
    measure(device, settings);
    return 0;
  });
}
