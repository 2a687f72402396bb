// Sums over ranks with the bits of every other communicator. NCCL's own reductions add in an order
// that follows from its rings and trees, and round bf16 and f16 at every hop; the contract is fp32
// sums in rank order, rounded once. So parts travel by ncclSend and ncclRecv, which move as many
// bytes as a ring, and one kernel adds them.
#pragma once

#include <span>
#include <vector>

#include "ashlar/buffer.hpp"
#include "comm/pass.hpp"
#include "cuda/nccl_group.hpp"
#include "cuda/nccl_place.hpp"

namespace ashlar::cuda {

class NcclSums {
 public:
  /// @param stream on which all of it runs
  NcclSums(int rank, int size, const NcclPlace& place, StreamRef stream);

  /// 8 bytes of each rank, free for whatever runs on the stream until the next sum.
  std::byte* small() const { return partials_.data(); }

  /// Passes that sum; `options` are theirs. @return bytes sent to other ranks.
  std::int64_t run(NcclGroup& group, std::span<const detail::Pass> passes,
                   const ReduceOptions& options);

 private:
  /// Elements [first, first + count) of each reader's range; `offset` in the scratch, in bytes.
  struct Piece {
    const detail::Pass* pass;
    detail::Range range;
    std::int64_t offset;
  };
  std::int64_t piece_length(const detail::Pass& pass) const;
  std::int64_t slot_bytes(const Piece& piece) const;
  /// What `reader` takes of `source`'s send in this piece.
  detail::Range share(const Piece& piece, int source, int reader) const;
  std::int64_t exchange(NcclGroup& group, std::span<const Piece> pieces);
  void add(const Piece& piece, const ReduceOptions& options);

  int rank_;
  int size_;
  NcclPlace place_;
  StreamRef stream_;
  Buffer parts_;
  Buffer partials_;
};

}  // namespace ashlar::cuda
