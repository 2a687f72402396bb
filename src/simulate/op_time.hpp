// What a kernel takes on a device: a roofline of the row's operations and bytes.
#pragma once

#include "graph/cost.hpp"
#include "graph/program.hpp"
#include "simulate/cluster.hpp"

namespace ashlar::simulate {

/// Operations and bytes of an instruction; rows that state none move what they read and write once,
/// but for what already lies in place. Nothing for views and collectives.
Cost cost_of_step(const Program& program, const Step& step);

/// Seconds of one run. With a = operations / rate and b = bytes / rate of memory: max(a, b) +
/// product_overhead min(a, b) for products and attention (Williams et al. 2009 is overhead 0),
/// max(a, b) for others; and the launch.
double seconds_of(const Cost& cost, DType dtype, const Device& device);

}  // namespace ashlar::simulate
