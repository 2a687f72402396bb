// A Communicator that passes everything on: what decorators override a part of.
#pragma once

#include "ashlar/communicator.hpp"

namespace ashlar::detail {

class ForwardingCommunicator : public Communicator {
 public:
  /// @param inner outlives this.
  explicit ForwardingCommunicator(Communicator& inner) : inner_(inner) {}

  int rank() const override { return inner_.rank(); }
  int size() const override { return inner_.size(); }
  bool same_node(int rank) const override { return inner_.same_node(rank); }
  std::string_view name() const override { return inner_.name(); }
  Work all_gather(std::span<const Transfer> flats, std::string_view label,
                  StreamRef stream) override {
    return inner_.all_gather(flats, label, stream);
  }
  Work reduce_scatter(std::span<const Transfer> flats, const ReduceOptions& options,
                      std::string_view label, StreamRef stream) override {
    return inner_.reduce_scatter(flats, options, label, stream);
  }
  Work all_reduce(TensorView values, std::string_view label, StreamRef stream) override {
    return inner_.all_reduce(values, label, stream);
  }
  Work broadcast(TensorView values, int root, std::string_view label, StreamRef stream) override {
    return inner_.broadcast(values, root, label, stream);
  }
  Work all_to_all(TensorView send, TensorView recv, std::string_view label,
                  StreamRef stream) override {
    return inner_.all_to_all(send, recv, label, stream);
  }
  Work send(TensorView values, int destination, std::string_view label, StreamRef stream) override {
    return inner_.send(values, destination, label, stream);
  }
  Work recv(TensorView values, int source, std::string_view label, StreamRef stream) override {
    return inner_.recv(values, source, label, stream);
  }
  void barrier(std::string_view label) override { inner_.barrier(label); }
  std::unique_ptr<Communicator> split(int color, int key) override {
    return inner_.split(color, key);
  }
  MemoryResource& window() override { return inner_.window(); }
  bool records() const override { return inner_.records(); }
  SentBytes sent_bytes() const override { return inner_.sent_bytes(); }
  std::vector<std::string> recent() const override { return inner_.recent(); }
  void set_timeout(std::chrono::milliseconds timeout) override { inner_.set_timeout(timeout); }
  void set_waits_at_once(bool on) override { inner_.set_waits_at_once(on); }
  void abort(std::string_view reason) noexcept override { inner_.abort(reason); }

 protected:
  Communicator& inner_;
};

}  // namespace ashlar::detail
