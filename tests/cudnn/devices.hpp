// GPUs that are described instead of there.
#pragma once

#include <string>

namespace ashlar::test {

/// A100, H200 or B200 (sm 80, 90, 100) in the JSON of cuDNN's device descriptors.
std::string description_of(int sm);

}  // namespace ashlar::test
