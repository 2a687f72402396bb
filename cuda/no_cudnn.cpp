// Where cuDNN's headers or its frontend were not found.
#include "cuda/attention.hpp"

namespace ashlar::cuda {

const DeviceKernel* find_attention(std::string_view, int, bool) { return nullptr; }

AttentionLibrary* attention_library(StreamRef) { return nullptr; }

std::string attention_choice(const DeviceKernel&, const KernelArguments&) { return {}; }

std::string attention_plans(Device) { return {}; }

}  // namespace ashlar::cuda
