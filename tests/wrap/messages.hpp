// What ranks are told when something is wrong.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "ashlar/communicator.hpp"
#include "ashlar/error.hpp"

namespace ashlar::test {

/// What each rank's exception says when all run `body`; empty for none.
inline std::vector<std::string> messages(int ranks,
                                         const std::function<void(Communicator&)>& body) {
  std::vector<std::string> all(static_cast<std::size_t>(ranks));
  launch_threads(ranks, [&](Communicator& world) {
    try {
      body(world);
    } catch (const Error& error) {
      all[static_cast<std::size_t>(world.rank())] = error.what();
    }
  });
  return all;
}

inline bool contains(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

}  // namespace ashlar::test
