#include "cuda/shared_library.hpp"

#include <dlfcn.h>
#include <fmt/format.h>

#include "ashlar/error.hpp"

namespace ashlar::cuda {

SharedLibrary::SharedLibrary(const std::string& file, const char* product, const char* remedy)
    : file_(file), remedy_(remedy), handle_(dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL)) {
  if (handle_ == nullptr)
    throw CudaError(
        fmt::format("{} could not be loaded: {}; {}, or add its folder to LD_LIBRARY_PATH", product,
                    dlerror(), remedy));
}

void* SharedLibrary::find(const char* name) const {
  void* const function = dlsym(handle_, name);
  if (function == nullptr) throw CudaError(fmt::format("{} has no {}; {}", file_, name, remedy_));
  return function;
}

}  // namespace ashlar::cuda
