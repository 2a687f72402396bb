// How much of a device a product fills: its result is cut into tiles, and the multiprocessors take
// a tile each, wave after wave.
#pragma once

#include "graph/program.hpp"

namespace ashlar::simulate {

/// The part of what the multiprocessors could do meanwhile that a rows x columns product is: tiles
/// overhang the result, and the last wave is not full (NVIDIA, Matrix Multiplication Background
/// User's Guide, sections 3.1 and 3.2). Tiles are 128 x 128, of those that section 2.3 calls most
/// efficient the finest.
/// @param multiprocessors of the device; 0: products are not tiled, and it is 1
double filled(double rows, double columns, int multiprocessors);

/// Of an instruction that is a product; of the head, which is up to three, their harmonic mean.
double filled(const Program& program, const Step& step, int multiprocessors);

}  // namespace ashlar::simulate
