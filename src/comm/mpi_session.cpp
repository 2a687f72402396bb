#include "comm/mpi_session.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <numeric>

namespace ashlar::detail {
namespace {

/// MPICH's launcher signals SIGUSR1 to the survivors of a lost rank, and UCX aborts the process
/// when a copy out of a lost rank's memory fails, as large messages inside a node are sent: both
/// would end them unheard. (Without the transport "cma" instead, MPI_Finalize was seen to hang.)
void outlive_lost_ranks() {
  struct sigaction action {};
  ::sigaction(SIGUSR1, nullptr, &action);
  if (action.sa_handler == SIG_DFL) std::signal(SIGUSR1, SIG_IGN);
  ::setenv("UCX_RNDV_THRESH", "inf", 0);
}

}  // namespace

void check_mpi(int status, std::string_view what) {
  if (status == MPI_SUCCESS) return;
  std::array<char, MPI_MAX_ERROR_STRING> text{};
  int length = 0;
  MPI_Error_string(status, text.data(), &length);
  throw Error(fmt::format("{}: {}", what, text.data()));
}

MpiSession::MpiSession() {
  outlive_lost_ranks();
  int provided = 0;
  check_mpi(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, &provided), "MPI_Init_thread");
  if (provided < MPI_THREAD_SERIALIZED)
    throw CommunicationError(
        "this MPI cannot be called from a communication thread; it must give "
        "MPI_THREAD_SERIALIZED");
  check_mpi(MPI_Comm_dup(MPI_COMM_WORLD, &communicator_), "MPI_Comm_dup");
  check_mpi(MPI_Comm_set_errhandler(communicator_, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
  MPI_Comm_rank(communicator_, &rank_);
  MPI_Comm_size(communicator_, &size_);
  processes_ = std::make_unique<Processes>([this](const std::string& t) { return exchange(t); });
}

MpiSession::~MpiSession() {
  MPI_Comm_free(&communicator_);
  MPI_Finalize();
}

std::vector<std::string> MpiSession::exchange(const std::string& text) {
  constexpr std::size_t kLength = 256;
  if (text.size() >= kLength) throw CommunicationError("a start-up text is too long");
  std::array<char, kLength> mine{};
  std::memcpy(mine.data(), text.data(), text.size());
  std::vector<char> all(static_cast<std::size_t>(size_) * kLength);
  check_mpi(
      MPI_Allgather(mine.data(), kLength, MPI_CHAR, all.data(), kLength, MPI_CHAR, communicator_),
      "MPI_Allgather");
  std::vector<std::string> texts;
  for (std::size_t at = 0; at < all.size(); at += kLength) texts.emplace_back(all.data() + at);
  return texts;
}

MpiGroup::MpiGroup(std::shared_ptr<MpiSession> session, std::vector<int> members, int context,
                   std::int64_t piece)
    : session_(std::move(session)), members_(std::move(members)), context_(context), piece_(piece) {
  void* largest = nullptr;
  int found = 0;
  const std::scoped_lock lock(session_->mutex());
  MPI_Comm_get_attr(session_->communicator(), MPI_TAG_UB, static_cast<void*>(&largest), &found);
  if (found != 0 && context_ * 8 + 7 > *static_cast<int*>(largest))
    throw CommunicationError(fmt::format("MPI has no tags left after {} groups", context_));
}

MpiGroup MpiGroup::split(std::span<const int> members, const Exchange& exchange) const {
  std::vector<int> world;
  for (const int rank : members) world.push_back(member(rank));
  int context = 0;
  for (const std::string& text : exchange(std::to_string(session_->next_context())))
    context = std::max(context, std::stoi(text));
  session_->set_next_context(context + 1);
  return {session_, std::move(world), context, piece_};
}

void MpiGroup::send(const void* data, std::int64_t bytes, int rank, MpiTag tag,
                    std::vector<MPI_Request>& requests) const {
  const std::scoped_lock lock(session_->mutex());
  for (std::int64_t first = 0; first < bytes; first += piece_)
    check_mpi(MPI_Isend(static_cast<const char*>(data) + first,
                        static_cast<int>(std::min(piece_, bytes - first)), MPI_BYTE, member(rank),
                        tag_of(tag), session_->communicator(), &requests.emplace_back()),
              "MPI_Isend");
}

void MpiGroup::recv(void* data, std::int64_t bytes, int rank, MpiTag tag,
                    std::vector<MPI_Request>& requests) const {
  const std::scoped_lock lock(session_->mutex());
  for (std::int64_t first = 0; first < bytes; first += piece_)
    check_mpi(MPI_Irecv(static_cast<char*>(data) + first,
                        static_cast<int>(std::min(piece_, bytes - first)), MPI_BYTE, member(rank),
                        tag_of(tag), session_->communicator(), &requests.emplace_back()),
              "MPI_Irecv");
}

bool MpiGroup::test(std::vector<MPI_Request>& requests) const {
  if (requests.empty()) return true;
  int complete = 0;
  const std::scoped_lock lock(session_->mutex());
  check_mpi(MPI_Testall(static_cast<int>(requests.size()), requests.data(), &complete,
                        MPI_STATUSES_IGNORE),
            "MPI_Testall");
  if (complete != 0) requests.clear();
  return complete != 0;
}

void MpiGroup::cancel(std::vector<MPI_Request>& requests) const noexcept {
  const std::scoped_lock lock(session_->mutex());
  for (MPI_Request& request : requests)
    if (request != MPI_REQUEST_NULL) {
      MPI_Cancel(&request);
      MPI_Request_free(&request);
    }
  requests.clear();
}

MpiMessages::Pending& MpiMessages::pending(const Operation& operation) {
  for (Pending& pending : pending_)
    if (pending.operation == &operation) return pending;
  return pending_.emplace_back(Pending{&operation, std::make_unique<Header>(), {}});
}

void MpiMessages::forget(const Operation& operation) {
  std::erase_if(pending_, [&](const Pending& pending) { return pending.operation == &operation; });
}

bool MpiMessages::advance(Operation& operation) {
  Pending& mine = pending(operation);
  const Flat& flat = operation.flats[0];
  const int peer = operation.header.peer;
  const std::int64_t bytes = flat.count * size_of(flat.send_type);
  const bool sends = operation.header.kind == Kind::send;
  if (operation.progress == 0) {
    *mine.header = operation.header;
    if (sends) {
      group_.send(mine.header.get(), sizeof(Header), peer, MpiTag::message_header, mine.requests);
      group_.send(flat.send, bytes, peer, MpiTag::message_data, mine.requests);
    } else {
      group_.recv(mine.header.get(), sizeof(Header), peer, MpiTag::message_header, mine.requests);
    }
    operation.progress = 1;
  }
  if (!group_.test(mine.requests)) return false;
  if (!sends && operation.progress == 1) {
    require_same_message(operation.header, *mine.header, peer);
    group_.recv(flat.recv, bytes, peer, MpiTag::message_data, mine.requests);
    operation.progress = 2;
    if (!group_.test(mine.requests)) return false;
  }
  forget(operation);
  return true;
}

}  // namespace ashlar::detail
