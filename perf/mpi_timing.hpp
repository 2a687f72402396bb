// Times what all ranks do together, under mpiexec.
#pragma once

#include <mpi.h>

#include <functional>

#include "timing.hpp"

namespace ashlar::perf {

/// Seconds of the slowest rank. Collective.
inline double time_of(const std::function<void()>& body) {
  MPI_Barrier(MPI_COMM_WORLD);
  const auto begin = Clock::now();
  body();
  double seconds = seconds_since(begin);
  MPI_Allreduce(MPI_IN_PLACE, &seconds, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
  return seconds;
}

}  // namespace ashlar::perf
