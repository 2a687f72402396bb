// Everything a program that uses Ashlar needs.
#pragma once

#include "ashlar/allocation_trace.hpp"    // IWYU pragma: export
#include "ashlar/autodiff.hpp"            // IWYU pragma: export
#include "ashlar/buffer.hpp"              // IWYU pragma: export
#include "ashlar/caching_resource.hpp"    // IWYU pragma: export
#include "ashlar/checkpoint.hpp"          // IWYU pragma: export
#include "ashlar/collective_failure.hpp"  // IWYU pragma: export
#include "ashlar/communicator.hpp"        // IWYU pragma: export
#include "ashlar/data.hpp"                // IWYU pragma: export
#include "ashlar/device.hpp"              // IWYU pragma: export
#include "ashlar/dry_run.hpp"             // IWYU pragma: export
#include "ashlar/error.hpp"               // IWYU pragma: export
#include "ashlar/memory_plan.hpp"         // IWYU pragma: export
#include "ashlar/memory_resource.hpp"     // IWYU pragma: export
#include "ashlar/nn/gpt.hpp"              // IWYU pragma: export
#include "ashlar/nn/language_model.hpp"   // IWYU pragma: export
#include "ashlar/nn/llama.hpp"            // IWYU pragma: export
#include "ashlar/op.hpp"                  // IWYU pragma: export
#include "ashlar/ops.hpp"                 // IWYU pragma: export
#include "ashlar/optimizer.hpp"           // IWYU pragma: export
#include "ashlar/pretrained.hpp"          // IWYU pragma: export
#include "ashlar/pullback.hpp"            // IWYU pragma: export
#include "ashlar/run_main.hpp"            // IWYU pragma: export
#include "ashlar/sharded_optimizer.hpp"   // IWYU pragma: export
#include "ashlar/sharding.hpp"            // IWYU pragma: export
#include "ashlar/train_step.hpp"          // IWYU pragma: export
