// A decorator for tests: delays collectives, or makes this rank fail at the n-th call.
#pragma once

#include <chrono>
#include <cstdint>

#include "comm/forwarding.hpp"

namespace ashlar::detail {

struct Fault {
  enum class Action : std::uint8_t {
    none,
    throws,  // an Error that says "injected fault"
    stalls,  // never joins; the call ends when the group has failed, as everybody's
    stops,   // the process stops, as by SIGSTOP
    dies,    // the process is killed, as by SIGKILL
  };
  Action action = Action::none;
  /// The collective at which it happens, counting from 1.
  std::int64_t at = 1;
  /// Every collective starts this much later, on its stream; its caller is not held up.
  std::chrono::microseconds delay{0};
};

class FaultCommunicator final : public ForwardingCommunicator {
 public:
  /// @param inner outlives this.
  FaultCommunicator(Communicator& inner, Fault fault)
      : ForwardingCommunicator(inner), fault_(fault) {}

  Work all_gather(std::span<const Transfer> flats, std::string_view label,
                  StreamRef stream) override {
    return inner_.all_gather(flats, label, before(stream));
  }
  Work reduce_scatter(std::span<const Transfer> flats, const ReduceOptions& options,
                      std::string_view label, StreamRef stream) override {
    return inner_.reduce_scatter(flats, options, label, before(stream));
  }
  Work all_reduce(TensorView values, std::string_view label, StreamRef stream) override {
    return inner_.all_reduce(values, label, before(stream));
  }
  Work broadcast(TensorView values, int root, std::string_view label, StreamRef stream) override {
    return inner_.broadcast(values, root, label, before(stream));
  }
  Work all_to_all(TensorView send, TensorView recv, std::string_view label,
                  StreamRef stream) override {
    return inner_.all_to_all(send, recv, label, before(stream));
  }
  Work send(TensorView values, int destination, std::string_view label, StreamRef stream) override {
    return inner_.send(values, destination, label, before(stream));
  }
  Work recv(TensorView values, int source, std::string_view label, StreamRef stream) override {
    return inner_.recv(values, source, label, before(stream));
  }
  void barrier(std::string_view label) override {
    before({}).synchronize();
    inner_.barrier(label);
  }

 private:
  /// Counts the call and returns the stream that it is to wait for.
  StreamRef before(StreamRef stream);

  Fault fault_;
  std::int64_t calls_ = 0;
  Stream delayed_;
};

}  // namespace ashlar::detail
