// NCCL as a table of functions, loaded when first used: a program starts without libnccl.so.2.
#pragma once

#include <nccl.h>

#include <string>

namespace ashlar::cuda {

struct NcclLibrary {
  /// @throws CudaError naming the file, and the function that it lacks.
  explicit NcclLibrary(const std::string& file);
  /// libnccl.so.2 as the dynamic linker finds it, loaded once.
  static const NcclLibrary& installed();

  decltype(&ncclGetUniqueId) get_unique_id;
  decltype(&ncclCommInitRankConfig) comm_init_rank_config;
  decltype(&ncclCommSplit) comm_split;
  decltype(&ncclCommUserRank) comm_user_rank;
  decltype(&ncclCommCount) comm_count;
  decltype(&ncclCommGetAsyncError) comm_get_async_error;
  decltype(&ncclCommFinalize) comm_finalize;
  decltype(&ncclCommDestroy) comm_destroy;
  decltype(&ncclCommAbort) comm_abort;
  decltype(&ncclGetErrorString) get_error_string;
  decltype(&ncclGetLastError) get_last_error;
  decltype(&ncclGroupStart) group_start;
  decltype(&ncclGroupEnd) group_end;
  decltype(&ncclAllGather) all_gather;
  decltype(&ncclBroadcast) broadcast;
  decltype(&ncclSend) send;
  decltype(&ncclRecv) recv;
};

}  // namespace ashlar::cuda
