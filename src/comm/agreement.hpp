// Small texts that every rank shows to every other.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "ashlar/communicator.hpp"

namespace ashlar::detail {

/// Every rank's text, by rank. Collective; counted as other traffic.
std::vector<std::string> exchange(Communicator& communicator, std::string_view text,
                                  std::string_view label);

}  // namespace ashlar::detail
