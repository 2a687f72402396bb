#include "comm/arguments.hpp"

#include <fmt/format.h>

#include "comm/reduce.hpp"

namespace ashlar::detail {
namespace {

[[noreturn]] void refuse(Kind kind, std::string_view label, std::string_view why) {
  throw InvalidArgument(fmt::format("{} {}: {}", name_of(kind), label, why));
}

void check_view(const TensorView& view, Kind kind, std::string_view label) {
  if (!view.contiguous()) refuse(kind, label, "views must be contiguous; copy the tensor first");
  if (view.data == nullptr && view.elements() > 0) refuse(kind, label, "a view has no memory");
}

void check_parts(const TensorView& part, const TensorView& whole, int size, Kind kind,
                 std::string_view label) {
  if (whole.elements() != part.elements() * size)
    refuse(kind, label,
           fmt::format("{} elements are not {} ranks x {}; pad the flat to a multiple of the ranks",
                       whole.elements(), size, part.elements()));
}

}  // namespace

Flat check_all_gather(const Transfer& flat, int size, std::string_view label) {
  constexpr Kind kind = Kind::all_gather;
  check_view(flat.send, kind, label);
  check_view(flat.recv, kind, label);
  check_parts(flat.send, flat.recv, size, kind, label);
  if (flat.send.dtype != flat.recv.dtype) refuse(kind, label, "send and recv differ in type");
  return {flat.send.data, flat.recv.data, flat.send.elements(), flat.send.dtype, flat.recv.dtype};
}

Flat check_reduce_scatter(const Transfer& flat, int size, std::string_view label) {
  constexpr Kind kind = Kind::reduce_scatter;
  check_view(flat.send, kind, label);
  check_view(flat.recv, kind, label);
  check_parts(flat.recv, flat.send, size, kind, label);
  if (!can_reduce(flat.send.dtype, flat.recv.dtype))
    refuse(kind, label,
           fmt::format("cannot sum {} into {}", ashlar::name_of(flat.send.dtype),
                       ashlar::name_of(flat.recv.dtype)));
  return {flat.send.data, flat.recv.data, flat.recv.elements(), flat.send.dtype, flat.recv.dtype};
}

Flat check_all_to_all(const TensorView& send, const TensorView& recv, int size,
                      std::string_view label) {
  constexpr Kind kind = Kind::all_to_all;
  check_view(send, kind, label);
  check_view(recv, kind, label);
  if (send.elements() != recv.elements() || send.dtype != recv.dtype)
    refuse(kind, label, "send and recv differ in size or type");
  if (send.elements() % size != 0)
    refuse(kind, label,
           fmt::format("{} elements cannot be cut into {} equal parts", send.elements(), size));
  return {send.data, recv.data, send.elements() / size, send.dtype, recv.dtype};
}

Flat check_in_place(const TensorView& values, Kind kind, std::string_view label) {
  check_view(values, kind, label);
  return {values.data, values.data, values.elements(), values.dtype, values.dtype};
}

void check_squares(const ReduceOptions& options, std::size_t flats, std::string_view label) {
  if (!options.sum_of_squares.empty() && options.sum_of_squares.size() != flats)
    refuse(Kind::reduce_scatter, label,
           fmt::format("{} sums of squares for {} flats", options.sum_of_squares.size(), flats));
}

void check_peer(int peer, int size, Kind kind, std::string_view label) {
  if (peer < 0 || peer >= size)
    refuse(kind, label, fmt::format("there is no rank {} among {} ranks", peer, size));
}

void check_other(int peer, int rank, int size, Kind kind, std::string_view label) {
  check_peer(peer, size, kind, label);
  if (peer == rank) refuse(kind, label, fmt::format("rank {} cannot message itself", rank));
}

}  // namespace ashlar::detail
