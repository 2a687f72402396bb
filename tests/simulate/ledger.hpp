// What ranks call, line by line, beside what the simulator reads.
#pragma once

#include <fmt/format.h>

#include <memory>
#include <string>
#include <vector>

#include "comm/forwarding.hpp"
#include "simulate/workload.hpp"

namespace ashlar::simulate {

/// Writes down what it passes on.
class Ledger : public detail::ForwardingCommunicator {
 public:
  explicit Ledger(Communicator& inner, std::vector<std::string>* elsewhere = nullptr)
      : ForwardingCommunicator(inner), lines_(elsewhere != nullptr ? *elsewhere : lines) {}

  Work all_gather(std::span<const Transfer> flats, std::string_view label,
                  StreamRef stream) override {
    std::int64_t bytes = 0;
    for (const Transfer& flat : flats) bytes += flat.recv.bytes();
    note("all_gather", bytes);
    return ForwardingCommunicator::all_gather(flats, label, stream);
  }
  Work reduce_scatter(std::span<const Transfer> flats, const ReduceOptions& options,
                      std::string_view label, StreamRef stream) override {
    std::int64_t bytes = 0;
    for (const Transfer& flat : flats) bytes += flat.send.bytes();
    note("reduce_scatter", bytes);
    return ForwardingCommunicator::reduce_scatter(flats, options, label, stream);
  }
  Work all_reduce(TensorView values, std::string_view label, StreamRef stream) override {
    note("all_reduce", values.bytes());
    return ForwardingCommunicator::all_reduce(values, label, stream);
  }

  std::unique_ptr<Communicator> split(int color, int key) override {
    struct Owned {
      std::unique_ptr<Communicator> inner;
    };
    struct Part final : Owned, Ledger {
      Part(std::unique_ptr<Communicator> group, std::vector<std::string>& into)
          : Owned{std::move(group)}, Ledger(*Owned::inner, &into) {}
    };
    return std::make_unique<Part>(inner_.split(color, key), lines_);
  }

  std::vector<std::string> lines;

 private:
  void note(const char* operation, std::int64_t bytes) {
    lines_.push_back(fmt::format("{} {} {}", operation, bytes, size()));
  }

  std::vector<std::string>& lines_;
};

inline std::vector<std::string> lines_of(const Workload& work) {
  std::vector<std::string> lines;
  const auto section = [&](int first, int last) {
    for (int t = first; t < last; ++t) {
      const Task& task = work.tasks[static_cast<std::size_t>(t)];
      if (task.kind != Task::Kind::start) continue;
      const CollectiveCall& call = work.collectives[static_cast<std::size_t>(task.collective)];
      lines.push_back(fmt::format("{} {} {}", name_of(call.kind), call.bytes, call.ranks));
    }
  };
  section(0, work.body_first);
  for (std::int64_t k = 0; k < work.repeats; ++k) section(work.body_first, work.body_last);
  section(work.body_last, static_cast<int>(work.tasks.size()));
  return lines;
}

}  // namespace ashlar::simulate
