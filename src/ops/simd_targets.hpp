// Which instruction sets kernels are compiled for: AVX-512, AVX2 and plain C++ as the fallback.
// Included before anything of Highway's by every kernel file.
#pragma once

#ifndef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4)
#endif
