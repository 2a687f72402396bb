#include "cuda/nccl_library.hpp"

#include "cuda/shared_library.hpp"

namespace ashlar::cuda {

NcclLibrary::NcclLibrary(const std::string& file) {
  const SharedLibrary library(file, "NCCL", "install NCCL 2.18 or later");
  library.get("ncclGetUniqueId", get_unique_id);
  library.get("ncclCommInitRankConfig", comm_init_rank_config);
  library.get("ncclCommSplit", comm_split);
  library.get("ncclCommUserRank", comm_user_rank);
  library.get("ncclCommCount", comm_count);
  library.get("ncclCommGetAsyncError", comm_get_async_error);
  library.get("ncclCommFinalize", comm_finalize);
  library.get("ncclCommDestroy", comm_destroy);
  library.get("ncclCommAbort", comm_abort);
  library.get("ncclGetErrorString", get_error_string);
  library.get("ncclGetLastError", get_last_error);
  library.get("ncclGroupStart", group_start);
  library.get("ncclGroupEnd", group_end);
  library.get("ncclAllGather", all_gather);
  library.get("ncclBroadcast", broadcast);
  library.get("ncclSend", send);
  library.get("ncclRecv", recv);
}

const NcclLibrary& NcclLibrary::installed() {
  static const NcclLibrary library("libnccl.so.2");
  return library;
}

}  // namespace ashlar::cuda
