#include "cuda/nccl_sums.hpp"

#include <algorithm>

#include "cuda/kernels/reduce_parts.hpp"

namespace ashlar::cuda {

using detail::Pass;
using detail::Range;

NcclSums::NcclSums(int rank, int size, const NcclPlace& place, StreamRef stream)
    : rank_(rank), size_(size), place_(place), stream_(stream) {
  const detail::ReductionScratch scratch(size, place.scratch_bytes);
  parts_ = detail::take_scratch(scratch.parts, *place_.memory, stream_);
  partials_ = detail::take_scratch(scratch.partials, *place_.memory, stream_);
}

std::int64_t NcclSums::piece_length(const Pass& pass) const {
  constexpr std::int64_t kBlocks = detail::ReductionScratch::kBlocks;
  const std::int64_t bytes = (size_ - 1) * pass.send_size();
  const std::int64_t fit = bytes == 0 ? kBlocks : parts_.bytes() / bytes / kNormBlock;
  return std::clamp<std::int64_t>(fit, 1, kBlocks) * kNormBlock;
}

std::int64_t NcclSums::slot_bytes(const Piece& piece) const {
  return align_up((size_ - 1) * piece.range.count * piece.pass->send_size());
}

Range NcclSums::share(const Piece& piece, int source, int reader) const {
  const Range all = piece.pass->read(source, reader);
  const std::int64_t first = std::min(piece.range.first, all.count);
  return {all.first + first, std::min(piece.range.count, all.count - first)};
}

// Ranks cut alike: by the longest range, though some are shorter.
std::int64_t NcclSums::run(NcclGroup& group, std::span<const Pass> passes,
                           const ReduceOptions& options) {
  std::vector<Piece> pieces;
  std::int64_t used = 0;
  std::int64_t sent = 0;
  const auto flush = [&] {
    sent += exchange(group, pieces);
    for (const Piece& piece : pieces) add(piece, options);
    pieces.clear();
    used = 0;
  };
  for (const Pass& pass : passes) {
    const std::int64_t length = piece_length(pass);
    std::int64_t first = 0;
    do {
      const Piece piece{&pass, {first, std::min(length, pass.longest() - first)}, 0};
      if (used + slot_bytes(piece) > parts_.bytes()) flush();
      pieces.push_back(piece);
      pieces.back().offset = used;
      used += slot_bytes(piece);
      first += length;
    } while (first < pass.longest());
  }
  flush();
  return sent;
}

std::int64_t NcclSums::exchange(NcclGroup& group, std::span<const Piece> pieces) {
  std::int64_t sent = 0;
  const auto stream = place_.native(stream_);
  const auto calls = [&](const NcclLibrary& nccl, ncclComm_t comm) {
    for (const Piece& piece : pieces)
      for (int peer = 0; peer < size_; ++peer) {
        if (peer == rank_) continue;
        const std::int64_t element = piece.pass->send_size();
        const Range out = share(piece, rank_, peer);
        const Range in = share(piece, peer, rank_);
        const int slot = peer < rank_ ? peer : peer - 1;
        std::byte* landing = parts_.data() + piece.offset + slot * piece.range.count * element;
        if (out.count > 0)
          group.accept(nccl.send(piece.pass->flat().send + out.first * element,
                                 static_cast<std::size_t>(out.count * element), ncclUint8, peer,
                                 comm, stream));
        if (in.count > 0)
          group.accept(nccl.recv(landing, static_cast<std::size_t>(in.count * element), ncclUint8,
                                 peer, comm, stream));
        sent += out.count * element;
      }
  };
  if (size_ > 1) group.issue(calls);
  return sent;
}

void NcclSums::add(const Piece& piece, const ReduceOptions& options) {
  const Pass& pass = *piece.pass;
  const Range mine = share(piece, rank_, rank_);
  const bool first_piece = piece.range.first == 0;
  double* squares =
      options.sum_of_squares.empty() ? nullptr : &options.sum_of_squares[pass.flat_index()];
  if (mine.count == 0 && !(first_piece && squares != nullptr)) return;
  const std::int64_t landing =
      pass.kind() == detail::Kind::all_reduce ? mine.first : piece.range.first;
  reduce_parts({.own = pass.flat().send + mine.first * pass.send_size(),
                .others = parts_.data() + piece.offset,
                .stride = piece.range.count,
                .rank = rank_,
                .ranks = size_,
                .source_type = pass.flat().send_type,
                .recv = pass.flat().recv + landing * size_of(pass.flat().recv_type),
                .recv_type = pass.flat().recv_type,
                .count = mine.count,
                .accumulate = options.accumulate,
                .round_to_bf16 = options.round_to_bf16,
                .squares = squares,
                .first_piece = first_piece,
                .partials = reinterpret_cast<double*>(partials_.data())},
               stream_);
}

}  // namespace ashlar::cuda
