#include "comm/mpi_window.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <sstream>

#include "comm/node_transport.hpp"
#include "comm/shared_memory.hpp"

namespace ashlar::detail {
namespace {

/// The address space of a window is reserved once; only pages in use take memory.
std::int64_t window_bytes() {
  const std::int64_t physical = ::sysconf(_SC_PHYS_PAGES) * ::sysconf(_SC_PAGESIZE);
  return align_up(physical, std::int64_t{1} << 21);
}

/// Every rank's window: its staging area, then what SharedResource serves.
struct Windows {
  SharedMemory board;
  std::vector<SharedMemory> of_rank;
};

class SharedWindows final : public AddressSpace {
 public:
  SharedWindows(int rank, MpiGroup group, Windows windows)
      : rank_(rank),
        messages_(std::move(group)),
        windows_(std::move(windows)),
        resource_(own(), stage_bytes(messages_.group().size())) {}

  std::string_view name() const override { return "mpi"; }
  Board& board() override { return *reinterpret_cast<Board*>(windows_.board.data()); }
  std::int64_t publish(const std::byte* pointer, std::int64_t bytes) const override {
    if (bytes == 0) return 0;
    const bool inside = pointer >= own().data() && pointer < own().data() + own().bytes();
    return inside ? pointer - own().data() : kPrivate;
  }
  const std::byte* resolve(int rank, std::int64_t address) const override {
    return windows_.of_rank[static_cast<std::size_t>(rank)].data() + address;
  }
  std::byte* stage(int rank) const override {
    return windows_.of_rank[static_cast<std::size_t>(rank)].data();
  }
  bool buffers_vanish() const override { return false; }
  bool dead(int rank) override {
    return messages_.group().session().processes().dead(messages_.group().member(rank));
  }
  MemoryResource& window() override { return resource_; }
  bool must_poll_messages() const override { return true; }
  bool advance(Operation& operation) override {
    const bool sends = operation.header.kind == Kind::send && operation.progress == 0;
    if (sends)
      board().slot(rank_).sent[static_cast<std::size_t>(Traffic::other)].fetch_add(
          operation.header.count * size_of(operation.header.dtype));
    return messages_.advance(operation);
  }
  std::unique_ptr<Transport> split(std::span<const int> members, const Exchange& exchange) override;

 private:
  const SharedMemory& own() const { return windows_.of_rank[static_cast<std::size_t>(rank_)]; }

  int rank_;
  MpiMessages messages_;
  Windows windows_;
  SharedResource resource_;
};

SharedMemory make_board(int size) {
  SharedMemory memory = SharedMemory::make("board", static_cast<std::int64_t>(Board::bytes(size)));
  auto* board = new (memory.data()) Board;
  for (int r = 0; r < size; ++r) (new (&board->slot(r)) Slot)->process = 0;
  return memory;
}

/// "process board-descriptor window-descriptor bytes".
struct Card {
  int process = 0;
  int board = -1;
  int window = -1;
  std::int64_t bytes = 0;

  std::string text() const { return fmt::format("{} {} {} {}", process, board, window, bytes); }
  static Card parse(const std::string& text) {
    Card card;
    std::istringstream(text) >> card.process >> card.board >> card.window >> card.bytes;
    return card;
  }
};

Windows open_all(int rank, Windows mine, const std::vector<Card>& cards) {
  Windows windows;
  const auto size = static_cast<int>(cards.size());
  windows.board = rank == 0 ? std::move(mine.board)
                            : SharedMemory::open(cards[0].process, cards[0].board,
                                                 static_cast<std::int64_t>(Board::bytes(size)));
  for (int r = 0; r < size; ++r) {
    const Card& card = cards[static_cast<std::size_t>(r)];
    windows.of_rank.push_back(r == rank
                                  ? std::move(mine.of_rank[0])
                                  : SharedMemory::open(card.process, card.window, card.bytes));
  }
  return windows;
}

std::unique_ptr<Transport> SharedWindows::split(std::span<const int> members,
                                                const Exchange& exchange) {
  const Exchange among_members = [&](const std::string& text) {
    const std::vector<std::string> all = exchange(text);
    std::vector<std::string> theirs;
    for (const int member : members) theirs.push_back(all[static_cast<std::size_t>(member)]);
    return theirs;
  };
  const auto rank = std::find(members.begin(), members.end(), rank_) - members.begin();
  std::string obstacle;
  auto transport = window_transport(
      static_cast<int>(rank), messages_.group().split(members, exchange), among_members, obstacle);
  if (!transport) throw CommunicationError("split: " + obstacle);
  return transport;
}

}  // namespace

std::unique_ptr<Transport> window_transport(int rank, MpiGroup group, const Exchange& exchange,
                                            std::string& obstacle) {
  Windows mine;
  Card card{.process = ::getpid()};
  try {
    if (rank == 0) mine.board = make_board(group.size());
    mine.of_rank.push_back(SharedMemory::make("window", window_bytes()));
    card.board = mine.board.descriptor();
    card.window = mine.of_rank[0].descriptor();
    card.bytes = mine.of_rank[0].bytes();
  } catch (const OutOfMemory& error) {
    obstacle = error.what();
  }
  std::vector<Card> cards;
  for (const std::string& text : exchange(card.text())) cards.push_back(Card::parse(text));
  Windows windows;
  try {
    if (obstacle.empty()) windows = open_all(rank, std::move(mine), cards);
  } catch (const OutOfMemory& error) {
    obstacle = error.what();
  }
  for (const std::string& text : exchange(obstacle.substr(0, 200)))
    if (!text.empty() && obstacle.empty()) obstacle = text;
  if (!obstacle.empty()) return nullptr;
  auto space = std::make_unique<SharedWindows>(rank, std::move(group), std::move(windows));
  space->board().slot(rank).process = ::getpid();
  const int size = static_cast<int>(cards.size());
  return std::make_unique<NodeTransport>(rank, size, std::move(space));
}

}  // namespace ashlar::detail
