// A library of NVIDIA's that is loaded when it is first needed, so that a program starts without
// it.
#pragma once

#include <string>

namespace ashlar::cuda {

/// Stays loaded for the life of the process.
class SharedLibrary {
 public:
  /// @param product, remedy for messages: "NCCL", "install NCCL 2.18 or later"
  /// @throws CudaError when it cannot be loaded.
  SharedLibrary(const std::string& file, const char* product, const char* remedy);

  /// dlopen's.
  void* handle() const { return handle_; }

  /// @throws CudaError when the library has no such function.
  template <typename Function>
  void get(const char* name, Function& function) const {
    function = reinterpret_cast<Function>(find(name));
  }

 private:
  void* find(const char* name) const;

  std::string file_;
  const char* remedy_;
  void* handle_;
};

}  // namespace ashlar::cuda
