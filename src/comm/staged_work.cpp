#include "comm/staged_work.hpp"

#include "ashlar/device_memory.hpp"

namespace ashlar::detail {

StagedWork::~StagedWork() {
  try {
    copies_.wait();
  } catch (const std::exception&) {  // the stream's owner is told by its next synchronize()
  }
  if (bytes_ > 0) staging_->give_back(std::move(block_));
}

std::size_t StagedWork::add(const TensorView& view, Way way) {
  parts_.push_back({view, way, bytes_});
  bytes_ += align_up(view.bytes());
  return parts_.size() - 1;
}

void StagedWork::copy_in(StreamRef stream) {
  if (bytes_ > 0) block_ = staging_->take(bytes_);
  const StreamRef copies = staging_->copies();
  copies.wait(stream.record());
  for (const Part& part : parts_)
    if (part.way != Way::out && part.view.bytes() > 0)
      copy_async(block_.data() + part.offset, part.view.data, part.view.bytes(), copies);
  copies_ = copies.record();
}

TensorView StagedWork::view(std::size_t number) const {
  const Part& part = parts_[number];
  return {block_.data() + part.offset, part.view.dtype, {part.view.elements()}};
}

void StagedWork::copy_out() const {
  const std::scoped_lock lock(mutex_);
  if (copied_) return;
  for (const Part& part : parts_)
    if (part.way != Way::in && part.view.bytes() > 0)
      copy_async(part.view.data, block_.data() + part.offset, part.view.bytes(),
                 staging_->copies());
  copies_ = staging_->copies().record();
  copied_ = true;
}

void StagedWork::wait() {
  try {
    inner_.wait();
  } catch (...) {
    copies_.wait();  // from here on the caller's memory may go
    throw;
  }
  copy_out();
  copies_.wait();
}

bool StagedWork::done() const {
  if (!inner_.done()) return false;
  try {
    Work inner = inner_;
    inner.wait();
  } catch (const CommunicationError&) {
    return copies_.done();  // wait() says why
  }
  copy_out();
  return copies_.done();
}

}  // namespace ashlar::detail
