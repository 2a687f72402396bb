// The CUDA stream behind a StreamRef, which users may ask for too.
#pragma once

#include "ashlar/interop/cuda_stream.hpp"  // IWYU pragma: export
