// The steps of programs as their kernels are going to be called.
#pragma once

#include <functional>
#include <span>

#include "graph/program.hpp"

namespace ashlar::cuda {

/// Calls `body` for every step of `programs` in order, with memory as it is planned for rank 0:
/// nothing may be read through the pointers.
void for_each_planned_call(
    std::span<const Program> programs, StreamRef stream,
    const std::function<void(const Node&, const Backend&, const KernelArguments&)>& body);

}  // namespace ashlar::cuda
