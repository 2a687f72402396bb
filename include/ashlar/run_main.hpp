// A program over the ranks of world() that ends as programs should: one line and an exit code.
#pragma once

#include <functional>
#include <string_view>

namespace ashlar {

/// Calls `body` and returns its exit code. An exception becomes one line "program: message" on
/// stderr and an exit code: 2 for InvalidArgument and OutOfMemory, else 1. A CollectiveFailure (of
/// `collectively`, `require_agreement`) is told by rank 0; any other failure by the rank that met
/// it, which then aborts the others, so that none waits for it: check input within `collectively`.
int run_main(std::string_view program, const std::function<int()>& body) noexcept;

}  // namespace ashlar
