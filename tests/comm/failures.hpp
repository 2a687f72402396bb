// How a group fails, whatever carries it. Each function is one rank's part and returns what the
// rank was told.
#pragma once

#include <array>
#include <chrono>
#include <string>
#include <thread>

#include "ashlar/communicator.hpp"
#include "comm/fault.hpp"
#include "comm/values.hpp"

namespace ashlar::test {

/// What `body` throws as a CommunicationError; empty when it does not.
template <typename Body>
std::string failure_of(const Body& body) {
  try {
    body();
  } catch (const CommunicationError& error) {
    return error.what();
  }
  return {};
}

/// Some steps of training-like traffic; the last collective is a barrier.
inline void step(Communicator& communicator) {
  const int size = communicator.size();
  const Flat send(DType::f32, 12 * size);
  const Flat recv(DType::f32, 12);
  const std::array<Transfer, 1> reduce = {{{send.view(), recv.view()}}};
  const std::array<Transfer, 1> gather = {{{recv.view(), send.view()}}};
  communicator.all_gather(gather, "h.3").wait();
  communicator.reduce_scatter(reduce, {}, "h.3.grad").wait();
  communicator.barrier("step");
}

inline bool contains(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

}  // namespace ashlar::test
