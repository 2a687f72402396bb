// GFLOP/s of every backend and layout on the products of a GPT training step: the numbers behind
// src/ops/product/gemm_rules.cpp. Prints one JSON object. Flags: --rows N (1024), --width C (768),
// --vocabulary V (50257), --ranks R (all cores), --seconds S per measurement (0.3), --cpu NAME of
// the rules (this machine).
#include "products.hpp"

#include <CLI/CLI.hpp>
#include <iostream>
#include <nlohmann/json.hpp>

#include "hardware.hpp"
#include "ops/product/machine.hpp"

namespace {

using ashlar::DType;
using ashlar::GemmBackend;
using nlohmann::ordered_json;

const char* name_of_backend(const ashlar::GemmRule& rule) {
  if (rule.backend == GemmBackend::openblas) return "openblas";
  if (rule.backend == GemmBackend::panels) return "panels";
  return rule.pack_b ? "onednn, B packed" : "onednn";
}

ordered_json measure(const ashlar::perf::NamedGemm& product, int ranks, double seconds,
                     const std::string& cpu) {
  const ashlar::Gemm& gemm = product.gemm;
  ordered_json rates;
  for (const ashlar::GemmRule& rule : ashlar::perf::rules_for(gemm)) {
    const double flops = 2.0 * static_cast<double>(gemm.m) * static_cast<double>(gemm.n) *
                         static_cast<double>(gemm.k);
    rates[name_of_backend(rule)] =
        1e-9 * flops / ashlar::perf::product_seconds(gemm, rule, ranks, seconds);
  }
  return {{"product", product.name},
          {"m", gemm.m},
          {"n", gemm.n},
          {"k", gemm.k},
          {"result", ashlar::name_of(gemm.result)},
          {"chosen", name_of_backend(ashlar::gemm_rule(gemm, cpu))},
          {"gflops_per_core", rates}};
}

}  // namespace

int main(int argc, char** argv) {
  std::int64_t rows = 1024, width = 768, vocabulary = 50257;
  int ranks = static_cast<int>(std::thread::hardware_concurrency());
  double seconds = 0.3;
  std::string cpu = ashlar::cpu_name();
  CLI::App app("Rates of matrix products");
  app.add_option("--rows", rows)->check(CLI::PositiveNumber);
  app.add_option("--width", width)->check(CLI::PositiveNumber);
  app.add_option("--vocabulary", vocabulary)->check(CLI::PositiveNumber);
  app.add_option("--ranks", ranks)->check(CLI::PositiveNumber);
  app.add_option("--seconds", seconds)->check(CLI::PositiveNumber);
  app.add_option("--cpu", cpu);
  CLI11_PARSE(app, argc, argv);

  ordered_json report = {
      {"benchmark", "products"}, {"hardware", hardware()}, {"rules_of", cpu}, {"ranks", ranks}};
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const auto& product : ashlar::perf::gpt_products(rows, width, vocabulary, dtype))
      report[std::string(ashlar::name_of(dtype))].push_back(measure(product, ranks, seconds, cpu));
  }
  std::cout << report.dump(1) << '\n';
}
