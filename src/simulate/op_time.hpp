// What a kernel takes on a device: a roofline of the row's operations and bytes.
#pragma once

#include "graph/cost.hpp"
#include "graph/program.hpp"
#include "simulate/cluster.hpp"

namespace ashlar::simulate {

/// Operations and bytes of an instruction; rows that state none move what they read and write once,
/// but for what already lies in place. Nothing for views and collectives.
Cost cost_of_step(const Program& program, const Step& step);

/// Seconds of one run: the longer of operations and bytes at the device's rates (Williams et al.
/// 2009, section 3), and the launch. @param backward of attention: slower per operation
/// @param filled the part of a product's operations that are its own (tiles.hpp)
double seconds_of(const Cost& cost, DType dtype, bool backward, const Device& device,
                  double filled = 1);

}  // namespace ashlar::simulate
