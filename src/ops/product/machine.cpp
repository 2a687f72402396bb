#include "ops/product/machine.hpp"

#include <cpuid.h>

#include <array>
#include <cstring>
#include <string_view>

namespace ashlar {
namespace {

struct Processor {
  bool amd = false;
  unsigned family = 0;
  unsigned model = 0;
  bool avx512 = false;
  bool avx512_bf16 = false;
  bool amx_bf16 = false;
};

/// The leaves of cpuid that tell vendor, family, model (1) and instruction sets (7).
Processor processor() {
  Processor result;
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid(0, &a, &b, &c, &d) == 0) return result;
  std::array<char, 12> vendor{};
  std::memcpy(vendor.data(), &b, 4);
  std::memcpy(vendor.data() + 4, &d, 4);
  std::memcpy(vendor.data() + 8, &c, 4);
  result.amd = std::string_view(vendor.data(), vendor.size()) == "AuthenticAMD";
  __get_cpuid(1, &a, &b, &c, &d);
  result.family = ((a >> 8) & 0xf) + ((a >> 20) & 0xff);
  result.model = ((a >> 4) & 0xf) | ((a >> 12) & 0xf0);
  result.avx512 = __builtin_cpu_supports("avx512f") != 0 &&
                  __builtin_cpu_supports("avx512bw") != 0 &&
                  __builtin_cpu_supports("avx512vl") != 0;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) != 0) result.amx_bf16 = ((d >> 22) & 1) != 0;
  if (__get_cpuid_count(7, 1, &a, &b, &c, &d) != 0)
    result.avx512_bf16 = result.avx512 && ((a >> 5) & 1) != 0;
  return result;
}

std::string_view name_of_model(const Processor& cpu) {
  if (cpu.amd && cpu.family == 0x1a && cpu.avx512) return "zen5";
  if (cpu.amd && cpu.family == 0x19 && cpu.avx512) return "zen4";
  if (!cpu.amd && cpu.family == 6 && cpu.amx_bf16) {
    if (cpu.model == 143) return "sapphire_rapids";
    if (cpu.model == 207) return "emerald_rapids";
    if (cpu.model == 173 || cpu.model == 174) return "granite_rapids";
  }
  if (cpu.amx_bf16 && cpu.avx512) return "amx";
  if (cpu.avx512_bf16) return "avx512_bf16";
  if (cpu.avx512) return "avx512";
  return __builtin_cpu_supports("avx2") != 0 ? "avx2" : "x86_64";
}

}  // namespace

std::string cpu_name() { return std::string(name_of_model(processor())); }

Backend host_backend(int threads) { return {cpu_name(), threads}; }

}  // namespace ashlar
