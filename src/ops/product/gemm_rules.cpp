// Which backend multiplies what. Measured with perf/products: GFLOP/s per core, both cores busy,
// GPT-2 124M shapes with 1024 rows, OpenBLAS 0.3.21, oneDNN 2.6.3.
//   zen5 f32: OpenBLAS 218-251 on all layouts; oneDNN 190-245, with B packed per call 209-241.
//   zen5 bf16, oneDNN plain / with B packed per call: x W 472-498 / 488-503, x^T dY 409-460 /
//     433-506, dE = dL^T x 343 / 424, but x W^T 478-509 / 469-492, and few rows (256 x V) 406 /
//     183. Panels 201-229.
// Other processors are not measured yet. Those with bf16 products take plain oneDNN; the rest run
// bf16 through f32 panels: oneDNN has but a reference there.
#include <algorithm>
#include <array>

#include "ops/product/gemm.hpp"
#include "ops/product/machine.hpp"

namespace ashlar {
namespace {

/// many_rows: B is not transposed and is used by so many rows that packing it pays.
enum class ShapeClass : std::uint8_t { any, many_rows };

struct Entry {
  std::string_view cpu;  // empty: all others
  DType dtype;
  ShapeClass shape;
  GemmRule rule;
};

constexpr GemmRule kOpenBlas{GemmBackend::openblas, false};
constexpr GemmRule kOneDnn{GemmBackend::onednn, false};
constexpr GemmRule kOneDnnPacked{GemmBackend::onednn, true};
constexpr GemmRule kPanels{GemmBackend::panels, false};

constexpr std::array kTable = {
    Entry{"zen5", DType::bf16, ShapeClass::many_rows, kOneDnnPacked},
    Entry{"zen5", DType::bf16, ShapeClass::any, kOneDnn},
    Entry{"zen4", DType::bf16, ShapeClass::any, kOneDnn},
    Entry{"sapphire_rapids", DType::bf16, ShapeClass::any, kOneDnn},
    Entry{"emerald_rapids", DType::bf16, ShapeClass::any, kOneDnn},
    Entry{"granite_rapids", DType::bf16, ShapeClass::any, kOneDnn},
    Entry{"amx", DType::bf16, ShapeClass::any, kOneDnn},
    Entry{"avx512_bf16", DType::bf16, ShapeClass::any, kOneDnn},
    Entry{"", DType::bf16, ShapeClass::any, kPanels},
    Entry{"", DType::f32, ShapeClass::any, kOpenBlas},
    Entry{"", DType::f64, ShapeClass::any, kOpenBlas},
};

}  // namespace

GemmRule gemm_rule(const Gemm& gemm, std::string_view cpu) {
  if (cpu.empty()) return gemm_rule(gemm, cpu_name());
  const bool many_rows = !gemm.transpose_b && gemm.m >= 512;
  const auto found = std::find_if(kTable.begin(), kTable.end(), [&](const Entry& entry) {
    return (entry.cpu.empty() || entry.cpu == cpu) && entry.dtype == gemm.dtype &&
           (entry.shape == ShapeClass::any || many_rows);
  });
  return found == kTable.end() ? kOpenBlas : found->rule;
}

}  // namespace ashlar
