// Collectives on a late device, over a communicator of the host.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "comm/forwarding.hpp"
#include "support/late_device.hpp"

namespace ashlar::test {

/// Collectives in the order of a stream of their own, as a GPU's are; on the inline stream they are
/// the inner communicator's. A test may have it lose an order between streams.
class LateCommunicator : public detail::ForwardingCommunicator {
 public:
  LateCommunicator(Communicator& inner, LateDevice& device)
      : ForwardingCommunicator(inner), window_(device.memory()), ours_(device.stream()) {}

  MemoryResource& window() override { return window_; }

  int sums = 0, joins = 0;
  int lost_sum = -1, lost_join = -1;  // number of the sum that starts at once, of the lost join

  Work all_gather(std::span<const Transfer> flats, std::string_view label,
                  StreamRef stream) override {
    if (stream.is_inline()) return inner_.all_gather(flats, label, stream);
    ours_.wait(stream.record());
    return later([this, all = copy_of(flats), name = std::string(label)] {
      return inner_.all_gather(all, name);
    });
  }
  Work reduce_scatter(std::span<const Transfer> flats, const ReduceOptions& options,
                      std::string_view label, StreamRef stream) override {
    if (stream.is_inline()) return inner_.reduce_scatter(flats, options, label, stream);
    await_terms(stream);
    return later([this, options, all = copy_of(flats), name = std::string(label)] {
      return inner_.reduce_scatter(all, options, name);
    });
  }
  Work all_reduce(TensorView values, std::string_view label, StreamRef stream) override {
    if (stream.is_inline()) return inner_.all_reduce(values, label, stream);
    await_terms(stream);
    return later(
        [this, values, name = std::string(label)] { return inner_.all_reduce(values, name); });
  }

 private:
  struct LateWork final : Work::State {
    explicit LateWork(LateCommunicator& by) : communicator(by) {}
    void wait() override {
      finished.wait();
      if (error) std::rethrow_exception(error);
    }
    bool done() const override { return finished.done(); }
    void join(StreamRef stream) override {
      if (communicator.joins++ != communicator.lost_join) stream.wait(finished);
    }
    LateCommunicator& communicator;
    Event finished;
    std::exception_ptr error;
  };

  static std::vector<Transfer> copy_of(std::span<const Transfer> flats) {
    return {flats.begin(), flats.end()};
  }

  void await_terms(StreamRef stream) {
    if (sums++ != lost_sum) ours_.wait(stream.record());
  }

  Work later(std::function<Work()> call) {
    const auto work = std::make_shared<LateWork>(*this);
    ours_.enqueue([work, call = std::move(call)] {
      try {
        call().wait();
      } catch (...) {
        work->error = std::current_exception();
      }
    });
    work->finished = ours_.record();
    return Work(work);
  }

  MemoryResource& window_;
  StreamRef ours_;
};

/// The same; what lies on the host goes through a communicator of its own, as it does beside NCCL.
class LateWorld final : public LateCommunicator {
 public:
  LateWorld(std::unique_ptr<Communicator> late, std::unique_ptr<Communicator> host,
            LateDevice& device)
      : LateCommunicator(*late, device),
        late_(std::move(late)),
        host_(std::move(host)),
        device_(device) {}

  Work all_gather(std::span<const Transfer> flats, std::string_view label,
                  StreamRef stream) override {
    if (stream.is_inline()) return host_->all_gather(flats, label);
    return LateCommunicator::all_gather(flats, label, stream);
  }
  Work reduce_scatter(std::span<const Transfer> flats, const ReduceOptions& options,
                      std::string_view label, StreamRef stream) override {
    if (stream.is_inline()) return host_->reduce_scatter(flats, options, label);
    return LateCommunicator::reduce_scatter(flats, options, label, stream);
  }
  Work all_reduce(TensorView values, std::string_view label, StreamRef stream) override {
    if (stream.is_inline()) return host_->all_reduce(values, label);
    return LateCommunicator::all_reduce(values, label, stream);
  }
  Work broadcast(TensorView values, int root, std::string_view label, StreamRef) override {
    return host_->broadcast(values, root, label);
  }
  std::unique_ptr<Communicator> split(int color, int key) override {
    return std::make_unique<LateWorld>(late_->split(color, key), host_->split(color, key), device_);
  }

 private:
  std::unique_ptr<Communicator> late_, host_;
  LateDevice& device_;
};

}  // namespace ashlar::test
