#include "comm/fault.hpp"

#include <csignal>
#include <future>
#include <thread>

namespace ashlar::detail {
namespace {

/// Takes part in a collective behind a stream that is held up for as long as the group lives.
/// @throws CommunicationError, in the end.
void stall(Communicator& communicator) {
  std::promise<void> release;
  const Stream held_up;
  StreamRef(held_up).enqueue([&] { release.get_future().wait(); });
  std::uint8_t nothing = 0;
  Work work = communicator.all_reduce({&nothing, DType::u8, {1}}, "stalled", held_up);
  try {
    work.wait();
  } catch (const CommunicationError&) {
    release.set_value();
    throw;
  }
}

}  // namespace

StreamRef FaultCommunicator::before(StreamRef stream) {
  if (++calls_ == fault_.at) switch (fault_.action) {
      case Fault::Action::none:
        break;
      case Fault::Action::throws:
        throw Error("injected fault");
      case Fault::Action::stalls:
        stall(inner_);
        break;
      case Fault::Action::stops:
        std::raise(SIGSTOP);
        break;
      case Fault::Action::dies:
        std::raise(SIGKILL);
        break;
    }
  if (fault_.delay.count() == 0) return stream;
  const StreamRef delayed(delayed_);
  delayed.wait(stream.record());
  delayed.enqueue([delay = fault_.delay] { std::this_thread::sleep_for(delay); });
  return delayed;
}

}  // namespace ashlar::detail
