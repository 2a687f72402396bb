#include "comm/waiter.hpp"

#include <fmt/format.h>

namespace ashlar::detail {

void Waiter::until_ready(const Event& event) {
  constexpr std::chrono::microseconds poll(100);
  if (spin_until([&] { return event.done(); })) return;
  while (true) {
    const std::uint32_t heard = transport_.meeting().listen();
    progress_();
    if (event.done()) return;
    if (const auto failure = transport_.failure()) fail(*failure);
    transport_.meeting().sleep(heard, poll);
  }
}

std::string Waiter::trouble_between(const Operation& message) {
  if (auto failure = transport_.failure()) return *failure;
  if (auto absence = transport_.absence(message.header.peer)) return *absence;
  if (Clock::now() - message.started < timeout()) return {};
  return describe_timeout(std::to_string(message.header.peer));
}

std::string Waiter::message(const Operation& operation, int rank, std::string_view trouble) {
  return fmt::format("{} (#{}) on rank {}: {}", describe(operation.header),
                     operation.header.sequence, rank, trouble);
}

void Waiter::fail(std::string_view trouble) const {
  throw CommunicationError(message(*operation_, transport_.rank(), trouble));
}

std::string Waiter::describe_timeout(const std::string& late) const {
  return fmt::format(
      "rank {} did not arrive within {} s; it is stopped, slow or at another operation (raise the "
      "timeout if it is slow)",
      late, static_cast<double>(timeout_ms_.load()) / 1000.0);
}

}  // namespace ashlar::detail
