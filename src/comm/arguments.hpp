// Checks of one rank's arguments, at the call.
#pragma once

#include "comm/operation.hpp"

namespace ashlar::detail {

/// Each @throws InvalidArgument naming the collective, its label and the remedy.
Flat check_all_gather(const Transfer& flat, int size, std::string_view label);
Flat check_reduce_scatter(const Transfer& flat, int size, std::string_view label);
Flat check_all_to_all(const TensorView& send, const TensorView& recv, int size,
                      std::string_view label);
Flat check_in_place(const TensorView& values, Kind kind, std::string_view label);
void check_squares(const ReduceOptions& options, std::size_t flats, std::string_view label);
void check_peer(int peer, int size, Kind kind, std::string_view label);
void check_other(int peer, int rank, int size, Kind kind, std::string_view label);

}  // namespace ashlar::detail
