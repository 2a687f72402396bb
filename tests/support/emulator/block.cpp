#include "emulator/block.hpp"

#include <fmt/core.h>

#include <bit>
#include <cstring>

#include "emulator/fault.hpp"

namespace emulator {
namespace {

constinit thread_local Block* block_now = nullptr;

bool same(const Site& a, const Site& b) {
  return a.line() == b.line() && a.column() == b.column() &&
         (a.file_name() == b.file_name() || std::strcmp(a.file_name(), b.file_name()) == 0);
}

std::string text_of(const Site& site) {
  return fmt::format("{}:{}", site.file_name(), site.line());
}

unsigned bit_of(unsigned number) { return 1U << (number % kWarpLanes); }

}  // namespace

Block::Block(const Launch& launch)
    : launch_(launch),
      stacks_(launch.block.x * launch.block.y * launch.block.z),
      lanes_(launch.block.x * launch.block.y * launch.block.z),
      brought_(lanes_.size() + kWarpLanes),
      shared_(launch.shared_bytes, launch.order),
      regions_(regions()) {
  for (unsigned i = 0; i < threads(); ++i) {
    const dim3& size = launch.block;
    lanes_[i].block = this;
    lanes_[i].number = i;
    lanes_[i].index = {i % size.x, i / size.x % size.y, i / (size.x * size.y)};
  }
}

Block& Block::current() { return *block_now; }

void Block::run(uint3 index, Shuffler& shuffler) {
  index_ = index;
  start();
  const unsigned warps = (threads() + kWarpLanes - 1) / kWarpLanes;
  do shuffler.visit(warps, [&](std::uint64_t w) { run_warp(static_cast<unsigned>(w), shuffler); });
  while (release_barrier());
  if (shared_.damaged())
    fail(lanes_[0], "some thread of this block wrote past the end of an array in shared memory");
}

void Block::start() {
  blockIdx = index_;
  block_now = this;
  dynamic_ = shared_.begin_block();
  for (Lane& lane : lanes_) {
    lane.state = Lane::State::ready;
    lane.call = {};
    lane.fiber.start(stacks_[lane.number], run_lane, &lane);
  }
}

void Block::run_lane(void* argument) {
  auto* lane = static_cast<Lane*>(argument);
  try {
    lane->block->launch_.kernel();
  } catch (...) {
    lane->block->error_ = std::current_exception();
  }
  lane->state = Lane::State::over;
}

void Block::resume(Lane& lane) {
  lane_ = &lane;
  threadIdx = lane.index;
  lane.fiber.resume();
  lane_ = nullptr;
  if (error_) std::rethrow_exception(error_);
  if (!faulted_) return;
  const std::string place = whereabouts(regions_, fault_);
  fail(lane, place.empty() ? fmt::format("touched address {}, where nothing is", fault_)
                           : "touched memory " + place);
}

void Block::run_warp(unsigned warp, Shuffler& shuffler) {
  const unsigned begin = warp * kWarpLanes;
  const unsigned end = std::min(begin + kWarpLanes, threads());
  do {
    shuffler.visit(end - begin, [&](std::uint64_t i) {
      Lane& lane = lanes_[begin + i];
      if (lane.state == Lane::State::ready) resume(lane);
    });
  } while (release_groups(begin, end));
}

bool Block::group_is_complete(const Lane& lane, unsigned begin) const {
  for (unsigned rest = lane.mask; rest != 0; rest &= rest - 1) {
    const Lane& other = lanes_[begin + static_cast<unsigned>(std::countr_zero(rest))];
    if (other.state != Lane::State::in_warp || other.mask != lane.mask ||
        !same(other.site, lane.site))
      return false;
  }
  return true;
}

bool Block::release_groups(unsigned begin, unsigned end) {
  bool released = false;
  bool waiting = false;
  for (unsigned i = begin; i < end; ++i) {
    const Lane& lane = lanes_[i];
    if (lane.state != Lane::State::in_warp) continue;
    waiting = true;
    if (!group_is_complete(lane, begin)) continue;
    released = true;
    for (unsigned rest = lane.mask; rest != 0; rest &= rest - 1) {
      Lane& member = lanes_[begin + static_cast<unsigned>(std::countr_zero(rest))];
      member.state = Lane::State::ready;
      brought_[member.number] = member.value;
    }
  }
  if (waiting && !released) report_stuck(begin, end);
  return released;
}

void Block::report_stuck(unsigned begin, unsigned end) const {
  unsigned i = begin;
  while (lanes_[i].state != Lane::State::in_warp && i + 1 < end) ++i;
  const Lane& lane = lanes_[i];
  for (unsigned rest = lane.mask; rest != 0; rest &= rest - 1) {
    const Lane& other = lanes_[begin + static_cast<unsigned>(std::countr_zero(rest))];
    if (other.state == Lane::State::over)
      fail(lane, fmt::format("waits with mask {:#x} for lane {}, which has exited", lane.mask,
                             other.number % kWarpLanes));
    if (other.state != Lane::State::in_warp || other.mask != lane.mask ||
        !same(other.site, lane.site))
      fail(lane, fmt::format("waits with mask {:#x} for lane {}, which waits in {} at {} with "
                             "mask {:#x}",
                             lane.mask, other.number % kWarpLanes, other.call, text_of(other.site),
                             other.mask));
  }
  fail(lane, "waits for ever");
}

bool Block::release_barrier() {
  const Lane* first = nullptr;
  for (const Lane& lane : lanes_)
    if (first == nullptr && lane.state == Lane::State::in_block) first = &lane;
  if (first == nullptr) return false;
  trues_ = 0;
  for (const Lane& lane : lanes_) {
    if (lane.state == Lane::State::over)
      fail(*first, fmt::format("waits for thread ({}, {}, {}), which has exited", lane.index.x,
                               lane.index.y, lane.index.z));
    if (!same(lane.site, first->site))
      fail(*first, fmt::format("waits for thread ({}, {}, {}), which waits at another barrier, {}",
                               lane.index.x, lane.index.y, lane.index.z, text_of(lane.site)));
  }
  for (Lane& lane : lanes_) {
    trues_ += lane.value != 0;
    lane.state = Lane::State::ready;
  }
  return true;
}

const std::uint64_t* Block::meet_warp(std::string_view call, unsigned mask, std::uint64_t value,
                                      Site site) {
  Lane& lane = *lane_;
  lane.call = call;
  lane.site = site;
  lane.mask = mask;
  lane.value = value;
  const unsigned begin = lane.number / kWarpLanes * kWarpLanes;
  const unsigned present = std::min(kWarpLanes, threads() - begin);
  if ((mask & bit_of(lane.number)) == 0) fail(fmt::format("is not in its mask {:#x}", mask));
  if (present < kWarpLanes && mask >> present != 0)
    fail(fmt::format("names lanes in its mask {:#x} that are absent: the warp has {} lanes", mask,
                     present));
  lane.state = Lane::State::in_warp;
  lane.fiber.suspend();
  return brought_.data() + begin;
}

unsigned Block::meet_block(std::string_view call, bool value, Site site) {
  Lane& lane = *lane_;
  lane.call = call;
  lane.site = site;
  lane.mask = 0;
  lane.value = value;
  lane.state = Lane::State::in_block;
  lane.fiber.suspend();
  return trues_;
}

void* Block::dynamic_shared() {
  if (dynamic_ == nullptr) fail("asks for dynamic shared memory; the launch gave none");
  return dynamic_;
}

void Block::check_access(const void* at, std::size_t bytes, std::string_view call) const {
  if (reinterpret_cast<std::uintptr_t>(at) % bytes != 0)
    fail(fmt::format("calls {} with address {}, which is not a multiple of {}", call, at, bytes));
  const auto* begin = static_cast<const std::byte*>(at);
  for (const Region& r : regions_)
    if (begin >= r.reserved_begin && begin < r.reserved_end)
      if (begin < r.begin || begin + bytes > r.end)
        fail(fmt::format("calls {} for {} bytes {}", call, bytes, whereabouts(regions_, at)));
}

std::string Block::describe(const Lane& lane) const {
  return fmt::format("thread ({}, {}, {}) of block ({}, {}, {})", lane.index.x, lane.index.y,
                     lane.index.z, index_.x, index_.y, index_.z);
}

void Block::fail(std::string_view why) const { fail(*lane_, why); }

void Block::fail(const Lane& lane, std::string_view why) const {
  const bool waits = lane.state == Lane::State::in_warp || lane.state == Lane::State::in_block;
  const std::string call = lane.call.empty() ? std::string()
                                             : fmt::format(", {} {} at {},", waits ? "in" : "after",
                                                           lane.call, text_of(lane.site));
  throw KernelError(fmt::format("{}{} {} (launched at {}, order {})", describe(lane), call, why,
                                text_of(launch_.site), name_of(launch_.order)));
}

void Block::fault(const void* address) {
  fault_ = address;
  faulted_ = true;
  lane_->fiber.abandon();
}

void run_grid(const Launch& launch) {
  const dim3& grid = launch.grid;
  Shuffler shuffler(launch.order);
  Block block(launch);
  const FaultScope faults(block);
  gridDim = grid;
  blockDim = launch.block;
  shuffler.visit(std::uint64_t{grid.x} * grid.y * grid.z, [&](std::uint64_t i) {
    const std::uint64_t row = i / grid.x;
    block.run({static_cast<unsigned>(i % grid.x), static_cast<unsigned>(row % grid.y),
               static_cast<unsigned>(row / grid.y)},
              shuffler);
  });
  if (const std::string place = damage(); !place.empty())
    throw KernelError(fmt::format("some thread wrote {} (launched at {}, order {})", place,
                                  text_of(launch.site), name_of(launch.order)));
}

}  // namespace emulator
