#include "cli/flags/seat.hpp"

#include <sched.h>

#include <algorithm>
#include <thread>
#include <vector>

#include "memory/control_group.hpp"

namespace ashlar::cli {

Seat take_seat() {
  Seat seat;
  seat.quota = detail::core_quota("/");
  cpu_set_t usable;
  CPU_ZERO(&usable);
  const bool known = ::sched_getaffinity(0, sizeof(usable), &usable) == 0;
  for (std::size_t core = 0; core < seat.cores.size(); ++core)
    seat.cores[core] =
        known ? CPU_ISSET(core, &usable) : core < std::thread::hardware_concurrency();
  return seat;
}

int share_of_cores(const Seat& mine, std::span<const Seat> node) {
  const auto rivals = std::ranges::count_if(
      node, [&](const Seat& other) { return (other.cores & mine.cores).any(); });
  const double cores = static_cast<double>(mine.cores.count()) / static_cast<double>(rivals);
  const double time = mine.quota / static_cast<double>(node.size());
  return std::max(1, static_cast<int>(std::min(cores, time)));
}

int default_threads(int ranks) {
  const Seat seat = take_seat();
  const double most = static_cast<double>(seat.cores.count());
  if (ranks >= most) return 1;
  return share_of_cores(seat, std::vector<Seat>(static_cast<std::size_t>(ranks), seat));
}

}  // namespace ashlar::cli
