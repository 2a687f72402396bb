// Measures one matrix product per backend and layout, with all ranks busy at the same time.
#pragma once

#include <time.h>

#include <algorithm>
#include <barrier>
#include <cstdint>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "ashlar/buffer.hpp"
#include "ops/product/gemm.hpp"
#include "timing.hpp"

namespace ashlar::perf {

struct NamedGemm {
  std::string name;
  Gemm gemm;
};

/// The products of one training step of GPT-2's layers and head: `rows` tokens, width `c`.
inline std::vector<NamedGemm> gpt_products(std::int64_t rows, std::int64_t c, std::int64_t v,
                                           DType dtype) {
  std::vector<NamedGemm> products;
  const std::int64_t chunk = std::min<std::int64_t>(rows, 256);
  const auto add = [&](std::string name, std::int64_t m, std::int64_t n, std::int64_t k, bool ta,
                       bool tb, DType result) {
    products.push_back({std::move(name),
                        {.m = m,
                         .n = n,
                         .k = k,
                         .transpose_a = ta,
                         .transpose_b = tb,
                         .dtype = dtype,
                         .result = result}});
  };
  const std::pair<std::int64_t, std::int64_t> layers[] = {
      {c, 3 * c}, {c, c}, {c, 4 * c}, {4 * c, c}};
  for (const auto& [k, n] : layers) {
    add("x W", rows, n, k, false, false, dtype);
    add("dY W^T", rows, k, n, false, true, dtype);
    add("x^T dY", k, n, rows, true, false, dtype);
    if (dtype == DType::bf16) add("x^T dY", k, n, rows, true, false, DType::f32);
  }
  add("head: x E^T", chunk, v, c, false, true, DType::f32);
  add("head: dL E", chunk, c, v, false, false, dtype);
  add("head: dL^T x", v, c, dtype == DType::bf16 ? rows : chunk, true, false, dtype);
  return products;
}

/// Every choice that computes the product.
inline std::vector<GemmRule> rules_for(const Gemm& gemm) {
  if (gemm.dtype == DType::f64) return {{GemmBackend::openblas, false}};
  std::vector<GemmRule> rules = {{GemmBackend::onednn, false}, {GemmBackend::onednn, true}};
  rules.push_back({gemm.dtype == DType::f32 ? GemmBackend::openblas : GemmBackend::panels, false});
  return rules;
}

inline double thread_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

/// Operands of a product, filled with small numbers.
struct GemmMemory {
  explicit GemmMemory(const GemmPlan& plan)
      : a(filled(plan.gemm().m * plan.gemm().k, plan.gemm().dtype)),
        b(filled(plan.gemm().k * plan.gemm().n, plan.gemm().dtype)),
        c(filled(plan.gemm().m * plan.gemm().n, plan.gemm().result)),
        workspace(host_memory(), plan.workspace_bytes(), Category::workspace) {}

  static Buffer filled(std::int64_t count, DType dtype) {
    Buffer buffer(host_memory(), count * size_of(dtype), Category::activation);
    for (std::int64_t i = 0; i < count; ++i) {
      const float value = static_cast<float>(i % 1021) / 1021.0F - 0.5F;
      if (dtype == DType::bf16) reinterpret_cast<bf16*>(buffer.data())[i] = bf16(value);
      if (dtype == DType::f32) reinterpret_cast<float*>(buffer.data())[i] = value;
      if (dtype == DType::f64) reinterpret_cast<double*>(buffer.data())[i] = double{value};
    }
    return buffer;
  }

  Buffer a, b, c, workspace;
};

/// Median seconds of processor time of one run, each of `ranks` threads computing its own.
inline double product_seconds(const Gemm& gemm, const GemmRule& rule, int ranks, double budget) {
  std::vector<double> medians(static_cast<std::size_t>(ranks));
  std::barrier together(ranks);
  std::vector<std::thread> threads;
  for (double& result : medians) {
    threads.emplace_back([&] {
      const GemmPlan plan(gemm, rule, 1);
      const GemmMemory memory(plan);
      const auto once = [&] {
        const double begin = thread_seconds();
        plan.run({}, memory.a.data(), memory.b.data(), nullptr, memory.c.data(),
                 memory.workspace.data());
        return thread_seconds() - begin;
      };
      once();
      together.arrive_and_wait();
      std::vector<double> times;
      for (double spent = 0; spent < budget || times.size() < 3; spent += times.back())
        times.push_back(once());
      result = median(std::move(times));
      together.arrive_and_wait();
    });
  }
  for (std::thread& thread : threads) thread.join();
  return *std::max_element(medians.begin(), medians.end());
}

}  // namespace ashlar::perf
