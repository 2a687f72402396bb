// The machine that products are chosen for.
#pragma once

#include <string>

#include "ashlar/op.hpp"

namespace ashlar {

/// "zen5", "sapphire_rapids", ...; an unlisted processor is named by its widest instruction set:
/// "amx", "avx512_bf16", "avx512", "avx2", "x86_64". Reads cpuid only.
std::string cpu_name();

/// This machine with `threads` threads per rank.
Backend host_backend(int threads);

}  // namespace ashlar
