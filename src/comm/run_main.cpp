#include "ashlar/run_main.hpp"

#include <fmt/format.h>

#include <cstdio>

#include "ashlar/collective_failure.hpp"
#include "ashlar/communicator.hpp"
#include "ashlar/error.hpp"

namespace ashlar {
namespace {

int exit_code(const std::exception& error) {
  const bool refused = dynamic_cast<const InvalidArgument*>(&error) != nullptr ||
                       dynamic_cast<const OutOfMemory*>(&error) != nullptr;
  return refused ? 2 : 1;
}

int fail(std::string_view program, const std::exception& error) {
  Communicator& ranks = world();
  const bool everybody = dynamic_cast<const CollectiveFailure*>(&error) != nullptr;
  if (!everybody || ranks.rank() == 0) fmt::print(stderr, "{}: {}\n", program, error.what());
  const int code = exit_code(error);
  if (ranks.size() > 1 && !everybody) {
    ranks.abort(error.what());
    abort_world(code);
  }
  return code;
}

}  // namespace

int run_main(std::string_view program, const std::function<int()>& body) noexcept {
  try {
    try {
      return body();
    } catch (const std::exception& error) {
      return fail(program, error);
    }
  } catch (const std::exception& error) {  // world() itself
    std::fprintf(stderr, "%.*s: %s\n", static_cast<int>(program.size()), program.data(),
                 error.what());
    return exit_code(error);
  }
}

}  // namespace ashlar
