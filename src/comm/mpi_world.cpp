// The world under a launcher: MPI's ranks, through shared windows when all of them run on one node,
// else through messages.
#include <fmt/format.h>

#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <thread>

#include "comm/group_communicator.hpp"
#include "comm/mpi_guardian.hpp"
#include "comm/mpi_session.hpp"
#include "comm/mpi_transport.hpp"
#include "comm/mpi_window.hpp"

namespace ashlar {
namespace detail {
namespace {

bool launched() {
  for (const char* name : {"PMI_RANK", "PMI_FD", "PMIX_RANK", "OMPI_COMM_WORLD_RANK"})
    if (std::getenv(name) != nullptr) return true;
  return false;
}

bool wants_window() {
  const char* choice = std::getenv("ASHLAR_WINDOW");
  return choice == nullptr || std::string_view(choice) != "off";
}

std::unique_ptr<Transport> world_transport(const std::shared_ptr<MpiSession>& session) {
  std::vector<int> members(static_cast<std::size_t>(session->size()));
  std::iota(members.begin(), members.end(), 0);
  MpiGroup group(session, std::move(members), 0);
  std::string obstacle;
  if (wants_window() && session->processes().one_node()) {
    const Exchange exchange = [&](const std::string& text) { return session->exchange(text); };
    if (auto transport = window_transport(session->rank(), group, exchange, obstacle))
      return transport;
    if (session->rank() == 0)
      fmt::print(stderr, "ashlar: ranks exchange messages, as no memory can be shared: {}\n",
                 obstacle);
  }
  return std::make_unique<MpiTransport>(session->rank(), std::move(group));
}

class World {
 public:
  World() {
    if (!launched()) {
      communicator_ = self_communicator();
      return;
    }
    stand_guard();
    session_ = std::make_shared<MpiSession>();
    auto group = std::make_unique<GroupCommunicator>(world_transport(session_));
    group_ = group.get();
    communicator_ = std::move(group);
  }
  ~World() {
    if (group_ != nullptr && !group_->close()) abort(EXIT_FAILURE);
    communicator_.reset();
  }
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  Communicator& communicator() { return *communicator_; }
  /// One rank ends the program, the lowest that can, after the others have had time to speak.
  [[noreturn]] void abort(int code) {
    std::fflush(nullptr);
    if (!session_) std::_Exit(code);
    const Processes& processes = session_->processes();
    int before = 0;
    for (int r = 0; r < session_->rank(); ++r) before += processes.dead(r) ? 0 : 1;
    std::this_thread::sleep_for(std::chrono::milliseconds(300 + 500 * before));
    processes.kill_others(session_->rank());
    if (!processes.one_node()) {
      std::thread([code] {  // MPI_Abort can wait for a dead rank for ever
        std::this_thread::sleep_for(std::chrono::seconds(2));
        std::_Exit(code);
      })
          .detach();
      const std::scoped_lock lock(session_->mutex());
      MPI_Abort(session_->communicator(), code);
    }
    std::_Exit(code);
  }

 private:
  std::shared_ptr<MpiSession> session_;
  GroupCommunicator* group_ = nullptr;
  std::unique_ptr<Communicator> communicator_;
};

World& the_world() {
  static World world;
  return world;
}

}  // namespace
}  // namespace detail

Communicator& world() { return detail::the_world().communicator(); }

void abort_world(int code) { detail::the_world().abort(code); }

}  // namespace ashlar
