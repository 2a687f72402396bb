// The communicator's reduce-scatter and in-place all-gather beside MPI's own, on the same flats and
// in the same run, and beside mere copies of an all-gather's bytes from private to private memory
// by all ranks at once: rounds alternate, the best of each counts. Run as `mpiexec -n 2
// perf_collectives`.
#include <mpi.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <iostream>
#include <limits>
#include <nlohmann/json.hpp>

#include "ashlar/buffer.hpp"
#include "ashlar/communicator.hpp"
#include "comm/copy.hpp"
#include "hardware.hpp"
#include "mpi_timing.hpp"

namespace {

using namespace ashlar;

struct Best {
  double seconds = std::numeric_limits<double>::infinity();

  void round(const std::function<void()>& way) { seconds = std::min(seconds, perf::time_of(way)); }
};

struct Contest {
  Best ours;
  Best mpi;

  void round(const std::function<void()>& our_way, const std::function<void()>& mpi_way) {
    ours.round(our_way);
    mpi.round(mpi_way);
  }
  nlohmann::json report(double bytes) const {
    return {{"seconds", ours.seconds},
            {"gigabytes_per_second", bytes / ours.seconds * 1e-9},
            {"mpi_seconds", mpi.seconds},
            {"mpi_gigabytes_per_second", bytes / mpi.seconds * 1e-9},
            {"speedup", mpi.seconds / ours.seconds}};
  }
};

}  // namespace

int main(int argc, char** argv) {
  std::int64_t bytes = std::int64_t{64} << 20;
  int rounds = 20;
  CLI::App app("Collectives of the communicator beside MPI's");
  app.add_option("--bytes", bytes, "Unsharded bytes of f32")->check(CLI::PositiveNumber);
  app.add_option("--rounds", rounds)->check(CLI::PositiveNumber);
  CLI11_PARSE(app, argc, argv);

  ::setenv("UCX_RNDV_THRESH", "auto", 0);  // MPI's own at its fastest, not at its most forgiving
  Communicator& group = world();
  if (group.name() != "mpi") {
    std::cerr << "perf_collectives compares with MPI: start it with mpiexec -n 2\n";
    return 2;
  }
  const int size = group.size();
  const int rank = group.rank();
  const std::int64_t part = bytes / 4 / size;
  const std::int64_t count = part * size;
  const Buffer flat(group.window(), count * 4, Category::gradient);
  const Buffer shard(host_memory(), part * 4, Category::gradient);
  const Buffer whole(group.window(), count * 4, Category::gathered_parameter);
  const Buffer mpi_flat(host_memory(), count * 4, Category::gradient);
  const Buffer mpi_shard(host_memory(), part * 4, Category::gradient);
  const Buffer landing(host_memory(), count * 4, Category::gathered_parameter);
  const auto fill = [&](const Buffer& buffer) {
    const auto values = buffer.view(DType::f32, {buffer.bytes() / 4}).span<float>();
    for (std::size_t i = 0; i < values.size(); ++i)
      values[i] = static_cast<float>(i % 1000) + static_cast<float>(rank);
  };
  for (const Buffer* buffer : {&flat, &shard, &whole, &mpi_flat, &mpi_shard, &landing})
    fill(*buffer);

  const std::array<Transfer, 1> reduce = {
      {{flat.view(DType::f32, {count}), shard.view(DType::f32, {part})}}};
  const std::array<Transfer, 1> gather = {
      {{whole.view(DType::f32, {count}).flat_slice(rank * part, part),
        whole.view(DType::f32, {count})}}};
  Contest reduce_scatter;
  Contest all_gather;
  Best copy;
  Best plain_copy;
  const std::int64_t foreign = (count - part) * 4;
  for (int i = 0; i < rounds; ++i) {
    reduce_scatter.round([&] { group.reduce_scatter(reduce).wait(); },
                         [&] {
                           MPI_Reduce_scatter_block(mpi_flat.data(), mpi_shard.data(),
                                                    static_cast<int>(part), MPI_FLOAT, MPI_SUM,
                                                    MPI_COMM_WORLD);
                         });
    all_gather.round([&] { group.all_gather(gather).wait(); },
                     [&] {
                       MPI_Allgather(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, mpi_flat.data(),
                                     static_cast<int>(part), MPI_FLOAT, MPI_COMM_WORLD);
                     });
    copy.round([&] { detail::copy_bytes(landing.data(), mpi_flat.data(), foreign); });
    plain_copy.round(
        [&] { std::memcpy(landing.data(), mpi_flat.data(), static_cast<std::size_t>(foreign)); });
  }
  if (rank == 0)
    std::cout << nlohmann::json{{"ranks", size},
                                {"bytes", count * 4},
                                {"rounds", rounds},
                                {"reduce_scatter",
                                 reduce_scatter.report(4.0 * static_cast<double>(count))},
                                {"all_gather", all_gather.report(4.0 * static_cast<double>(count))},
                                {"copy_bound",
                                 {{"seconds", copy.seconds},
                                  {"memcpy_seconds", plain_copy.seconds},
                                  {"share_of_all_gather", copy.seconds / all_gather.ours.seconds}}},
                                {"hardware", hardware()}}
                     .dump(1)
              << std::endl;
  return 0;
}
