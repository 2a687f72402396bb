// Which kernels a program holds and which of them it has launched: the linker sends the calls of
// the CUDA runtime that register and launch kernels through functions here (--wrap).
#pragma once

#include <filesystem>

namespace ashlar::test {

/// Writes {"kernels": [...]}, mangled names in ascending order, and from now on, as a kernel is
/// launched for the first time, {"launched": "..."}: lines of JSON, so that what is stopped leaves
/// what it has done. @throws Error when the file cannot be written.
void write_kernels(const std::filesystem::path& file);

}  // namespace ashlar::test
