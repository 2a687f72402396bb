// Which kernels a program holds and which of them it has launched: the linker sends the calls of
// the CUDA runtime that register and launch kernels through functions here (--wrap).
#pragma once

#include <string>

namespace ashlar::test {

/// {"kernels": [...], "launched": [...]}: mangled names in ascending order.
std::string kernels_as_json();

}  // namespace ashlar::test
