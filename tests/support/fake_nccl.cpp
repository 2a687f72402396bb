// libnccl.so for ranks that are threads of one process. A stream is one of the CPU: operations run
// on its thread, read the memory of the other ranks, and hang as NCCL's do when a rank is missing.
// A stream may record them: they are numbered as they run, and a communicator does not go before
// the recordings that it is in.
#include "fake_nccl.hpp"

#include <nccl.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "runtime/stream_state.hpp"

namespace {

FakeNccl faults;

struct Call {
  enum class Kind { all_gather, broadcast, send, recv } kind;
  const void* send;
  void* recv;
  std::size_t bytes;
  int peer;               // root of a broadcast
  bool recorded = false;  // by a stream: on all ranks or on none

  bool between_two() const { return kind == Kind::send || kind == Kind::recv; }
  bool agrees_with(const Call& other) const {
    return kind == other.kind && bytes == other.bytes && peer == other.peer &&
           recorded == other.recorded;
  }
};

struct Meeting {
  std::vector<Call> calls;
  int arrived = 0;
  int left = 0;
  enum class Verdict { open, go, differ, broken } verdict = Verdict::open;
};

struct Message {
  const void* data;
  std::size_t bytes;
  bool recorded;
  bool taken = false;
};

struct Clique;
struct Split {
  std::vector<std::tuple<int, int, int>> ranks;  // color, key, rank
  std::map<int, std::shared_ptr<Clique>> cliques;
};

struct Clique {
  explicit Clique(int ranks) : size(ranks) {}
  const int size;
  std::mutex mutex;
  std::condition_variable changed;
  int joined = 0;
  std::map<std::uint64_t, Meeting> meetings;
  std::map<std::pair<int, int>, std::deque<std::shared_ptr<Message>>> boxes;
  std::map<std::uint64_t, Split> splits;
};

struct Rank {
  Rank(std::shared_ptr<Clique> all, int number) : clique(std::move(all)), rank(number) {}
  const std::shared_ptr<Clique> clique;
  const int rank;
  std::uint64_t collectives = 0;  // that have begun
  std::uint64_t splits = 0;
  std::atomic<int> looks = 0;
  std::atomic<ncclResult_t> state = ncclSuccess;
  bool aborted = false;  // under the clique's mutex
};

using Lock = std::unique_lock<std::mutex>;

void hang(Rank& rank, Lock& lock) {
  rank.clique->changed.wait(lock, [&] { return rank.aborted; });
}

/// Rank `r`'s part of a collective, once all are there.
void transfer(const Rank& rank, const Meeting& meeting) {
  const Call& mine = meeting.calls[static_cast<std::size_t>(rank.rank)];
  for (int r = 0; r < rank.clique->size; ++r) {
    const Call& theirs = meeting.calls[static_cast<std::size_t>(r)];
    const bool all = mine.kind == Call::Kind::all_gather;
    if (!all && r != mine.peer) continue;
    char* to = static_cast<char*>(mine.recv) + (all ? static_cast<std::size_t>(r) * mine.bytes : 0);
    if (to != theirs.send) std::memcpy(to, theirs.send, mine.bytes);
  }
}

void meet(Rank& rank, const Call& call, std::uint64_t index) {
  Clique& clique = *rank.clique;
  Lock lock(clique.mutex);
  Meeting& meeting = clique.meetings[index];
  using Verdict = Meeting::Verdict;
  meeting.calls.resize(static_cast<std::size_t>(clique.size));
  meeting.calls[static_cast<std::size_t>(rank.rank)] = call;
  if (++meeting.arrived == clique.size && meeting.verdict == Verdict::open) {
    meeting.verdict = Verdict::go;
    for (const Call& other : meeting.calls)
      if (!other.agrees_with(call)) meeting.verdict = Verdict::differ;
    clique.changed.notify_all();
  }
  clique.changed.wait(lock, [&] { return meeting.verdict != Verdict::open || rank.aborted; });
  if (meeting.verdict == Verdict::go) {
    lock.unlock();
    transfer(rank, meeting);
    lock.lock();
    ++meeting.left;
    clique.changed.notify_all();
    clique.changed.wait(lock, [&] { return meeting.left == clique.size; });
    return;
  }
  if (meeting.verdict == Verdict::open) meeting.verdict = Verdict::broken;
  if (meeting.verdict == Verdict::differ) rank.state = ncclInvalidUsage;
  hang(rank, lock);
}

/// All messages of a group at once.
void deliver(Rank& rank, const std::vector<Call>& calls) {
  Clique& clique = *rank.clique;
  Lock lock(clique.mutex);
  std::vector<std::shared_ptr<Message>> sent;
  for (const Call& call : calls)
    if (call.kind == Call::Kind::send) {
      sent.push_back(std::make_shared<Message>(Message{call.send, call.bytes, call.recorded}));
      clique.boxes[{rank.rank, call.peer}].push_back(sent.back());
    }
  clique.changed.notify_all();
  for (const Call& call : calls) {
    if (call.kind != Call::Kind::recv) continue;
    auto& box = clique.boxes[{call.peer, rank.rank}];
    clique.changed.wait(lock, [&] { return !box.empty() || rank.aborted; });
    if (rank.aborted) break;
    const std::shared_ptr<Message> message = box.front();
    box.pop_front();
    if (message->bytes != call.bytes || message->recorded != call.recorded) {
      rank.state = ncclInvalidUsage;
      return hang(rank, lock);
    }
    std::memcpy(call.recv, message->data, call.bytes);
    message->taken = true;
    clique.changed.notify_all();
  }
  const auto taken = [&] {
    return std::all_of(sent.begin(), sent.end(), [](const auto& m) { return m->taken; });
  };
  clique.changed.wait(lock, [&] { return taken() || rank.aborted; });
  for (auto& [way, box] : clique.boxes)
    std::erase_if(
        box, [&](const auto& m) { return std::find(sent.begin(), sent.end(), m) != sent.end(); });
}

void run(Rank& rank, const std::vector<Call>& calls) {
  const int launch = faults.launches++;
  if (const int delay = faults.delay_us; delay > 0)
    std::this_thread::sleep_for(std::chrono::microseconds(launch * 7919 % delay));
  if (faults.cut_off == rank.rank) {
    rank.state = ncclRemoteError;
    Lock lock(rank.clique->mutex);
    return hang(rank, lock);
  }
  std::vector<Call> messages;
  for (const Call& call : calls)
    if (call.between_two())
      messages.push_back(call);
    else
      meet(rank, call, rank.collectives++);
  if (!messages.empty()) deliver(rank, messages);
}

struct Pending {
  std::shared_ptr<Rank> rank;
  ashlar::detail::StreamState* stream;
  Call call;
};
thread_local int depth = 0;
thread_local std::vector<Pending> pending;
thread_local ncclResult_t group_result = ncclSuccess;  // of its first call that was refused

/// One launch for each communicator and stream.
void launch_pending() {
  while (!pending.empty()) {
    const std::shared_ptr<Rank> rank = pending.front().rank;
    ashlar::detail::StreamState* stream = pending.front().stream;
    std::vector<Call> calls;
    for (const Pending& each : pending)
      if (each.rank == rank && each.stream == stream) calls.push_back(each.call);
    std::erase_if(pending,
                  [&](const Pending& each) { return each.rank == rank && each.stream == stream; });
    rank->looks = faults.looks.load();
    stream->enqueue([rank, calls] { run(*rank, calls); });
  }
}

}  // namespace

struct ncclComm {
  std::shared_ptr<Rank> rank;
};

namespace {

std::mutex cliques_mutex;
std::map<std::string, std::shared_ptr<Clique>> cliques;

/// As NCCL does, which would wait for ever.
void await_last_work(const ncclComm& comm) {
  const auto end =
      std::chrono::steady_clock::now() + std::chrono::seconds(FakeNccl::kPatienceSeconds);
  while (comm.rank.use_count() > 1) {
    if (std::chrono::steady_clock::now() > end) {
      ++faults.stuck;
      return;
    }
    std::this_thread::sleep_for(std::chrono::microseconds(50));
  }
}

ncclResult_t add(const Call& call, ncclComm_t comm, cudaStream_t stream) {
  ++faults.calls;
  if (stream == nullptr) return ncclUnhandledCudaError;  // the legacy stream ends recordings
  auto* const ours = reinterpret_cast<ashlar::detail::StreamState*>(stream);
  pending.push_back({comm->rank, ours, call});
  pending.back().call.recorded = ours->recording();
  if (depth == 0) launch_pending();
  return ncclSuccess;
}

ncclComm* make(std::shared_ptr<Clique> clique, int rank) {
  ++faults.communicators;
  return new ncclComm{std::make_shared<Rank>(std::move(clique), rank)};
}

}  // namespace

extern "C" {

FakeNccl* fake_nccl() { return &faults; }

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  static std::atomic<int> count = 0;
  std::memset(id, 0, sizeof(*id));
  const std::string text = "clique " + std::to_string(++count);
  std::memcpy(id->internal, text.data(), text.size());
  return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t* comm, int size, ncclUniqueId id, int rank,
                                    ncclConfig_t*) {
  if (const int result = faults.connect_result; result != 0)
    return static_cast<ncclResult_t>(result);
  std::shared_ptr<Clique> clique;
  {
    const std::scoped_lock lock(cliques_mutex);
    std::shared_ptr<Clique>& known = cliques[id.internal];
    if (!known) known = std::make_shared<Clique>(size);
    clique = known;
    if (++clique->joined == size) cliques.erase(id.internal);
  }
  *comm = make(clique, rank);
  return ncclInProgress;
}

ncclResult_t ncclCommSplit(ncclComm_t comm, int color, int key, ncclComm_t* part, ncclConfig_t*) {
  Rank& rank = *comm->rank;
  Clique& clique = *rank.clique;
  Lock lock(clique.mutex);
  Split& split = clique.splits[rank.splits++];
  split.ranks.emplace_back(color, key, rank.rank);
  clique.changed.notify_all();
  const auto complete = [&] { return split.ranks.size() == static_cast<std::size_t>(clique.size); };
  if (!clique.changed.wait_for(lock, std::chrono::seconds(20), complete)) return ncclSystemError;
  std::sort(split.ranks.begin(), split.ranks.end());
  int size = 0;
  int mine = 0;
  for (const auto& [c, k, r] : split.ranks) {
    if (c != color) continue;
    if (r == rank.rank) mine = size;
    ++size;
  }
  std::shared_ptr<Clique>& made = split.cliques[color];
  if (!made) made = std::make_shared<Clique>(size);
  const std::scoped_lock joining(cliques_mutex);
  ++made->joined;
  *part = make(made, mine);
  return ncclInProgress;
}

ncclResult_t ncclCommUserRank(const ncclComm_t comm, int* rank) {
  *rank = comm->rank->rank;
  return ncclSuccess;
}
ncclResult_t ncclCommCount(const ncclComm_t comm, int* count) {
  *count = comm->rank->clique->size;
  return ncclSuccess;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* state) {
  Rank& rank = *comm->rank;
  *state = rank.state;
  if (*state != ncclSuccess) return ncclSuccess;
  const std::scoped_lock lock(cliques_mutex);
  if (rank.clique->joined < rank.clique->size) *state = ncclInProgress;
  if (rank.looks > 0) {
    --rank.looks;
    *state = ncclInProgress;
  }
  return ncclSuccess;
}

ncclResult_t ncclCommFinalize(ncclComm_t comm) {
  await_last_work(*comm);
  return ncclInProgress;
}

ncclResult_t ncclCommDestroy(ncclComm_t comm) {
  --faults.communicators;
  delete comm;
  return ncclSuccess;
}

ncclResult_t ncclCommAbort(ncclComm_t comm) {
  {
    const std::scoped_lock lock(comm->rank->clique->mutex);
    comm->rank->aborted = true;
  }
  comm->rank->clique->changed.notify_all();
  await_last_work(*comm);
  ++faults.aborts;
  return ncclCommDestroy(comm);
}

const char* ncclGetErrorString(ncclResult_t result) {
  switch (result) {
    case ncclSystemError:
      return "unhandled system error";
    case ncclInvalidArgument:
      return "invalid argument";
    case ncclInvalidUsage:
      return "invalid usage";
    case ncclRemoteError:
      return "remote process exited or there was a network error";
    default:
      return "another error";
  }
}
const char* ncclGetLastError(ncclComm_t comm) {
  return comm->rank->state == ncclInvalidUsage ? "ranks gave different counts" : "";
}

ncclResult_t ncclGroupStart() {
  ++depth;
  return ncclSuccess;
}
ncclResult_t ncclGroupEnd() {
  if (--depth > 0) return ncclSuccess;
  const ncclResult_t result = std::exchange(group_result, ncclSuccess);
  if (result != ncclSuccess) pending.clear();
  launch_pending();
  return result == ncclSuccess ? ncclInProgress : result;
}

ncclResult_t ncclAllGather(const void* send, void* recv, size_t count, ncclDataType_t,
                           ncclComm_t comm, cudaStream_t stream) {
  return add({Call::Kind::all_gather, send, recv, count, 0}, comm, stream);
}
ncclResult_t ncclBroadcast(const void* send, void* recv, size_t count, ncclDataType_t, int root,
                           ncclComm_t comm, cudaStream_t stream) {
  return add({Call::Kind::broadcast, send, recv, count, root}, comm, stream);
}
ncclResult_t ncclSend(const void* send, size_t count, ncclDataType_t, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
  return add({Call::Kind::send, send, nullptr, count, peer}, comm, stream);
}
ncclResult_t ncclRecv(void* recv, size_t count, ncclDataType_t, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
  if (faults.refused == comm->rank->rank) return group_result = ncclInvalidArgument;
  return add({Call::Kind::recv, nullptr, recv, count, peer}, comm, stream);
}
}
