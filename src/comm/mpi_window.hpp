// Ranks of one node as processes that share windows: anonymous files in memory that every rank
// maps. They need no room in /dev/shm and vanish with their processes.
#pragma once

#include "comm/mpi_session.hpp"
#include "comm/transport.hpp"

namespace ashlar::detail {

/// Null where memory cannot be shared, on all ranks alike; `obstacle` then says why. Collective.
std::unique_ptr<Transport> window_transport(int rank, MpiGroup group, const Exchange& exchange,
                                            std::string& obstacle);

}  // namespace ashlar::detail
