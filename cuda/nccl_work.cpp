#include "cuda/nccl_work.hpp"

#include <fmt/format.h>

#include <chrono>
#include <thread>

#include "runtime/spin.hpp"

namespace ashlar::cuda {
namespace {

constexpr std::chrono::microseconds kPoll(50);

}  // namespace

NcclWork::NcclWork(std::shared_ptr<NcclHealth> health, const detail::Header& header, Event ready,
                   bool replayed)
    : health_(std::move(health)),
      header_(header),
      record_(health_->recorder().queue(header)),
      ready_(std::move(ready)),
      replayed_(replayed) {}

void NcclWork::issued(std::shared_ptr<NcclGroup> group, Event finished) {
  health_->recorder().start(record_);
  group_ = std::move(group);
  finished_ = std::move(finished);
  status_.store(Status::issued);
}

void NcclWork::fail(std::string_view trouble) noexcept {
  {
    const std::scoped_lock lock(mutex_);
    if (failing_ || status_ == Status::done) return;
    failing_ = true;
    error_ = fmt::format("{} (#{}){} on rank {}: {}", describe(header_), header_.sequence,
                         replayed_ ? " or what is replayed with it" : "", health_->rank(), trouble);
  }
  health_->fail(error_);
  if (group_) group_->abort();
  if (status_ == Status::issued) drain();
  health_->recorder().end(record_, true);
  status_.store(Status::failed);
}

void NcclWork::drain() const {
  const Clock::time_point end = health_->drained_by();
  try {
    while (ready_.done() && !finished_.done() && Clock::now() < end)
      std::this_thread::sleep_for(kPoll);
  } catch (const Error&) {  // the device has failed too
  }
}

void NcclWork::finish() const {
  const std::scoped_lock lock(mutex_);
  if (failing_ || status_ != Status::issued) return;
  health_->recorder().end(record_, false);
  status_.store(Status::done);
}

void NcclWork::look(std::optional<Clock::time_point>& begun) {
  try {
    const bool finished = finished_.done();
    if (health_->failed()) return fail("the group failed before: " + health_->reason());
    if (finished) return finish();
    const std::string trouble = group_->trouble();
    if (!trouble.empty()) return fail(trouble);
    if (!begun && ready_.done()) begun = Clock::now();
    if (begun && Clock::now() - *begun > health_->timeout()) fail(health_->late());
  } catch (const Error& error) {
    fail(error.what());
  }
}

void NcclWork::wait() {
  detail::spin_until([&] { return done(); });
  std::optional<Clock::time_point> begun;
  while (status_ == Status::queued || status_ == Status::issued) {
    if (status_ == Status::issued) look(begun);
    if (status_ == Status::queued || status_ == Status::issued) std::this_thread::sleep_for(kPoll);
  }
  throw_failure();
}

bool NcclWork::done() const {
  if (status_ == Status::issued && !health_->failed() && finished_.done()) finish();
  const Status status = status_;
  return status == Status::done || status == Status::failed ||
         (status == Status::issued && health_->failed());
}

void NcclWork::join(StreamRef stream) {
  while (status_ == Status::queued) std::this_thread::sleep_for(kPoll);
  throw_failure();
  stream.wait(finished_);
}

void NcclWork::throw_failure() const {
  if (status_ == Status::failed) throw CommunicationError(error_);
}

}  // namespace ashlar::cuda
