// What every communicator says of calls: that ranks agree, what is wrong with arguments, what it
// did.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <chrono>
#include <new>
#include <stdexcept>
#include <string>

#include "ashlar/collective_failure.hpp"
#include "comm/conformance.hpp"
#include "comm/values.hpp"

namespace ashlar::test {
namespace {

/// The narrowest class that a user would catch.
std::string caught(const std::function<void()>& body) {
  try {
    body();
  } catch (const CorruptCheckpoint& error) {
    return fmt::format("CorruptCheckpoint: {}", error.what());
  } catch (const InvalidArgument& error) {
    return fmt::format("InvalidArgument: {}", error.what());
  } catch (const OutOfMemory& error) {
    return fmt::format("OutOfMemory: {}", error.what());
  } catch (const CommunicationError& error) {
    return fmt::format("CommunicationError: {}", error.what());
  } catch (const Error& error) {
    return fmt::format("Error: {}", error.what());
  }
  return "nothing";
}

/// The last rank alone throws `Thrown`; every rank throws `class_name` and what it said.
template <typename Thrown>
void check_class(Communicator& communicator, const std::string& class_name) {
  const auto check = [&] {
    if (communicator.rank() == communicator.size() - 1) throw Thrown("just so");
  };
  CHECK(caught([&] { collectively(communicator, check); }) == class_name + ": just so");
  CHECK_THROWS_AS(collectively(communicator, check), CollectiveFailure);
}

void check_classes(Communicator& communicator) {
  check_class<InvalidArgument>(communicator, "InvalidArgument");
  check_class<CorruptCheckpoint>(communicator, "CorruptCheckpoint");
  check_class<OutOfMemory>(communicator, "OutOfMemory");
  check_class<CommunicationError>(communicator, "CommunicationError");
  check_class<Error>(communicator, "Error");
  check_class<std::logic_error>(communicator, "Error");
  const int last = communicator.size() - 1;
  const auto exhaust = [&] {
    if (communicator.rank() == last) throw std::bad_alloc();
  };
  CHECK(caught([&] { collectively(communicator, exhaust); }) ==
        fmt::format("OutOfMemory: rank {}: out of memory: the system refused an allocation", last));
}

}  // namespace

void check_agreement(Communicator& communicator) {
  const int size = communicator.size();
  std::vector<std::string> entries = {"gather wte", "", "matmul 4x5"};
  require_agreement(communicator, "the schedule", entries);
  if (size > 1) {
    if (communicator.rank() == size - 1) entries[2] = "matmul 4x6";
    const std::string message =
        "ranks disagree on the schedule, entry 2: rank 0 has 'matmul 4x5', "
        "rank " +
        std::to_string(size - 1) + " has 'matmul 4x6'";
    CHECK_THROWS_WITH_AS(require_agreement(communicator, "the schedule", entries), message.c_str(),
                         InvalidArgument);
    if (communicator.rank() == 0) entries.resize(1);
    CHECK_THROWS_AS(require_agreement(communicator, "the schedule", entries), InvalidArgument);
  }
  collectively(communicator, [] {});
  const auto check = [&] {
    if (communicator.rank() >= size / 2)
      throw InvalidArgument("rank " + std::to_string(communicator.rank()) + " has no file");
  };
  const std::string lowest = "rank " + std::to_string(size / 2) + " has no file";
  CHECK_THROWS_WITH_AS(collectively(communicator, check), lowest.c_str(), InvalidArgument);
  check_classes(communicator);
  communicator.barrier("still usable");
}

void check_bad_arguments(Communicator& communicator) {
  const int size = communicator.size();
  const Flat flat(DType::f32, 6 * size);
  const Flat ints(DType::i32, 6);
  const TensorView strided(flat.view().data, DType::f32, {3}, {2});
  const std::array<Transfer, 1> short_by_one = {{{flat.part(0, 5), flat.view()}}};
  const std::array<Transfer, 1> types = {{{ints.view(), flat.view()}}};
  CHECK_THROWS_AS(communicator.all_gather(short_by_one, "x"), InvalidArgument);
  CHECK_THROWS_AS(communicator.all_gather(types, "x"), InvalidArgument);
  const std::array<Transfer, 1> sum_types = {{{flat.view(), ints.view()}}};
  CHECK_THROWS_AS(communicator.reduce_scatter(sum_types, {}, "x"), InvalidArgument);
  CHECK_THROWS_AS(communicator.all_reduce(strided, "x"), InvalidArgument);
  CHECK_THROWS_AS(communicator.broadcast(flat.view(), size, "x"), InvalidArgument);
  CHECK_THROWS_AS(communicator.send(flat.view(), communicator.rank(), "x"), InvalidArgument);
  CHECK_THROWS_AS(communicator.set_timeout(std::chrono::milliseconds(0)), InvalidArgument);
  communicator.barrier("still usable");
}

void check_recorder(Communicator& communicator) {
  std::array<float, 3> values{};
  communicator.all_reduce({values.data(), DType::f32, {3}}, "wpe").wait();
  communicator.barrier("end");
  const std::vector<std::string> lines = communicator.recent();
  REQUIRE(lines.size() >= 2);
  CHECK(lines[lines.size() - 2].find(" all_reduce wpe 3 x f32: done") != std::string::npos);
  CHECK(lines.back().find(" barrier end: done") != std::string::npos);
}

}  // namespace ashlar::test
