#include "cuda/nccl_group.hpp"

#include <fmt/format.h>

#include <chrono>
#include <system_error>
#include <thread>
#include <utility>

#include "ashlar/error.hpp"

namespace ashlar::cuda {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::microseconds kPoll(50);

ncclConfig_t without_blocking() {
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  return config;
}

}  // namespace

std::string NcclHealth::late() const {
  return fmt::format(
      "not every rank arrived within {} s; one is stopped, slow or at another operation (raise the "
      "timeout if it is slow)",
      static_cast<double>(timeout_ms_.load()) / 1000.0);
}

std::shared_ptr<NcclGroup> NcclGroup::connect(const NcclLibrary& library,
                                              std::shared_ptr<NcclHealth> health,
                                              const ncclUniqueId& id, int rank, int size) {
  auto group = std::make_shared<NcclGroup>(library, std::move(health));
  const std::scoped_lock lock(group->mutex_);
  ncclConfig_t config = without_blocking();
  try {
    group->accept(library.comm_init_rank_config(&group->comm_, size, id, rank, &config));
    group->settle();
  } catch (const CommunicationError& error) {
    group->aborted_ = true;
    if (group->comm_ != nullptr) library.comm_abort(group->comm_);
    group->comm_ = nullptr;
    throw CommunicationError(
        fmt::format("NCCL could not connect rank {} of {}: {}", rank, size, error.what()));
  }
  return group;
}

NcclGroup::~NcclGroup() {
  leave();
  if (aborting_.joinable()) aborting_.join();
}

void NcclGroup::leave() {
  if (comm_ == nullptr) return;
  try {
    require_alive();
    accept(library_.comm_finalize(comm_));
    settle();
    library_.comm_destroy(comm_);
  } catch (const CommunicationError&) {  // of this group's end, or before it
    abort();
  }
}

int NcclGroup::rank() const {
  int rank = 0;
  accept(library_.comm_user_rank(comm_, &rank));
  return rank;
}

int NcclGroup::size() const {
  int size = 0;
  accept(library_.comm_count(comm_, &size));
  return size;
}

std::shared_ptr<NcclGroup> NcclGroup::split(int color, int key) {
  auto part = std::make_shared<NcclGroup>(library_, health_);
  const std::scoped_lock lock(mutex_);
  require_alive();
  ncclConfig_t config = without_blocking();
  accept(library_.comm_split(comm_, color, key, &part->comm_, &config));
  settle();
  part->settle();
  return part;
}

std::string NcclGroup::trouble() const {
  const std::unique_lock lock(mutex_, std::try_to_lock);
  if (!lock) return {};  // who holds it sees it
  if (comm_ == nullptr) return health_->reason();
  ncclResult_t state = ncclSuccess;
  const ncclResult_t asked = library_.comm_get_async_error(comm_, &state);
  if (asked != ncclSuccess) return explain(asked);
  return state == ncclSuccess || state == ncclInProgress ? std::string() : explain(state);
}

void NcclGroup::abort() noexcept {
  aborted_ = true;
  const std::scoped_lock lock(mutex_);
  if (comm_ == nullptr) return;
  const ncclComm_t comm = std::exchange(comm_, nullptr);
  try {
    aborting_ = std::thread([&library = library_, comm] { library.comm_abort(comm); });
  } catch (const std::system_error&) {  // no thread is to be had
    library_.comm_abort(comm);
  }
}

void NcclGroup::require_alive() const {
  if (health_->failed() || comm_ == nullptr) throw CommunicationError(health_->reason());
}

void NcclGroup::settle() const {
  const Clock::time_point end = Clock::now() + health_->timeout();
  while (true) {
    ncclResult_t state = ncclSuccess;
    accept(library_.comm_get_async_error(comm_, &state));
    if (state == ncclSuccess) return;
    accept(state);
    if (aborted_ || health_->failed()) throw CommunicationError(health_->reason());
    if (Clock::now() > end) throw CommunicationError(health_->late());
    std::this_thread::sleep_for(kPoll);
  }
}

void NcclGroup::accept(ncclResult_t result) const {
  if (result != ncclSuccess && result != ncclInProgress) throw CommunicationError(explain(result));
}

std::string NcclGroup::explain(ncclResult_t result) const {
  const char* last = comm_ == nullptr ? nullptr : library_.get_last_error(comm_);
  const bool more = last != nullptr && *last != '\0';
  return fmt::format("NCCL: {}{}{}", library_.get_error_string(result), more ? ": " : "",
                     more ? last : "");
}

}  // namespace ashlar::cuda
