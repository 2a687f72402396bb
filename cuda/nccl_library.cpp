#include "cuda/nccl_library.hpp"

#include <dlfcn.h>
#include <fmt/format.h>

#include "ashlar/error.hpp"

namespace ashlar::cuda {
namespace {

void* open(const std::string& file) {
  void* library = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr)
    throw CudaError(
        fmt::format("NCCL could not be loaded: {}; install NCCL 2.18 or later, or add "
                    "its folder to LD_LIBRARY_PATH",
                    dlerror()));
  return library;
}

template <typename Function>
void find(void* library, const std::string& file, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  if (function == nullptr)
    throw CudaError(fmt::format("{} has no {}; install NCCL 2.18 or later", file, name));
}

}  // namespace

NcclLibrary::NcclLibrary(const std::string& file) {
  void* library = open(file);
  const auto get = [&](const char* name, auto& function) { find(library, file, name, function); };
  get("ncclGetUniqueId", get_unique_id);
  get("ncclCommInitRankConfig", comm_init_rank_config);
  get("ncclCommSplit", comm_split);
  get("ncclCommUserRank", comm_user_rank);
  get("ncclCommCount", comm_count);
  get("ncclCommGetAsyncError", comm_get_async_error);
  get("ncclCommFinalize", comm_finalize);
  get("ncclCommDestroy", comm_destroy);
  get("ncclCommAbort", comm_abort);
  get("ncclGetErrorString", get_error_string);
  get("ncclGetLastError", get_last_error);
  get("ncclGroupStart", group_start);
  get("ncclGroupEnd", group_end);
  get("ncclAllGather", all_gather);
  get("ncclBroadcast", broadcast);
  get("ncclSend", send);
  get("ncclRecv", recv);
}

const NcclLibrary& NcclLibrary::installed() {
  static const NcclLibrary library("libnccl.so.2");
  return library;
}

}  // namespace ashlar::cuda
