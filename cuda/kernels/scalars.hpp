// What changes from run to run, seen from a kernel.
#pragma once

#include "ashlar/op.hpp"
#include "cuda/device.h"

namespace ashlar::cuda {

/// Seed, step and learning rate of the device's block where there is one, so that a captured launch
/// reads new ones; the micro-batch and the samples are those of the launch.
__device__ inline RunScalars scalars_of_run(RunScalars captured, const RunScalars* on_device) {
  if (on_device == nullptr) return captured;
  captured.seed = on_device->seed;
  captured.step = on_device->step;
  captured.learning_rate = on_device->learning_rate;
  return captured;
}

}  // namespace ashlar::cuda
