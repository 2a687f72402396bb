#include "sharding/registered.hpp"

#include <algorithm>

namespace ashlar {
namespace {

/// Calls visit(parameter, first element of it, piece of the part).
template <typename Visit>
void for_each_piece(const Flat& layout, const TensorView& part, std::int64_t begin,
                    const Visit& visit) {
  const std::int64_t end = begin + part.elements();
  for (const Flat::Entry& entry : layout.entries) {
    const std::int64_t from = std::max(entry.begin, begin), to = std::min(entry.end, end);
    if (from < to)
      visit(static_cast<std::size_t>(entry.parameter), from - entry.begin,
            part.flat_slice(from - begin, to - from));
  }
}

}  // namespace

bool Registered::keeps_gradients(const Flat& flat) const {
  return std::ranges::all_of(flat.entries, [&](const Flat::Entry& entry) {
    return gradients[static_cast<std::size_t>(entry.parameter)].data != nullptr;
  });
}

void copy_in(const Flat& layout, const std::vector<TensorView>& from, std::int64_t begin,
             const TensorView& part, const ElementOps& ops) {
  for_each_piece(layout, part, begin, [&](std::size_t p, std::int64_t first, TensorView piece) {
    const TensorView source = from[p].flat_slice(first, piece.elements());
    ops.convert(source.data, source.dtype, piece);
  });
}

void copy_out(const Flat& layout, const TensorView& part, std::int64_t begin,
              const std::vector<TensorView>& to, const ElementOps& ops) {
  for_each_piece(layout, part, begin, [&](std::size_t p, std::int64_t first, TensorView piece) {
    ops.convert(piece.data, piece.dtype, to[p].flat_slice(first, piece.elements()));
  });
}

void clear_gaps(const Flat& layout, const TensorView& flat, const ElementOps& ops) {
  std::int64_t end = 0;
  const auto clear = [&](std::int64_t to) {
    const TensorView gap = flat.flat_slice(end, to - end);
    if (to > end) ops.zero(gap);
  };
  for (const Flat::Entry& entry : layout.entries) {
    clear(entry.begin);
    end = entry.end;
  }
  clear(flat.elements());
}

}  // namespace ashlar
