// A simulated step for chrome://tracing and Perfetto.
#pragma once

#include <iosfwd>
#include <span>

#include "simulate/engine.hpp"

namespace ashlar::simulate {

/// Writes the trace event format: per chosen class a process with the threads "compute" (kernels by
/// name, and waits) and one for each stream of communication. Microseconds. @param shown indices
/// into classes
void write_chrome_trace(std::ostream& out, const Program& program, const Workload& workload,
                        std::span<const RankClass> classes, std::span<const int> shown,
                        const Jitter& jitter = {});

}  // namespace ashlar::simulate
