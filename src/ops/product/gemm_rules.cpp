// Which backend multiplies what. Measured with perf/products (GFLOP/s per core, both cores busy,
// GPT-2 124M shapes with 1024 rows):
//   zen5 f32: OpenBLAS (SkylakeX kernels) 241-260 on all layouts; oneDNN 220-265 plain, 232-260
//     with B packed per call, and its transposed A falls to 200.
//   zen5 bf16: oneDNN plain 440-510, with B packed per call 430-490; where m is many times n (the
//     gradient of a tied embedding) 330-355 plain and 430-445 packed.
// Processors without bf16 products run bf16 through f32 panels: oneDNN has but a reference there.
#include <algorithm>
#include <array>

#include "ops/product/gemm.hpp"
#include "ops/product/machine.hpp"

namespace ashlar {
namespace {

enum class ShapeClass : std::uint8_t { any, tall };

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
    Entry{"zen5", DType::bf16, ShapeClass::tall, kOneDnnPacked},
    Entry{"zen5", DType::bf16, ShapeClass::any, kOneDnn},
    Entry{"zen4", DType::bf16, ShapeClass::tall, kOneDnnPacked},
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
  const bool tall = gemm.n >= 256 && gemm.m >= 16 * gemm.n;
  const auto found = std::find_if(kTable.begin(), kTable.end(), [&](const Entry& entry) {
    return (entry.cpu.empty() || entry.cpu == cpu) && entry.dtype == gemm.dtype &&
           (entry.shape == ShapeClass::any || tall);
  });
  return found == kTable.end() ? kOpenBlas : found->rule;
}

}  // namespace ashlar
