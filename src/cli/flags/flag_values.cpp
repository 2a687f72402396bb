#include "cli/flags/flag_values.hpp"

#include <algorithm>

#include "ashlar/memory_resource.hpp"
#include "base/nearest.hpp"

namespace ashlar::cli {

void require(bool holds, std::string_view flag, std::string_view value, std::string_view remedy) {
  if (!holds) throw InvalidArgument(fmt::format("--{} {}: {}", flag, value, remedy));
}

void require_choice(std::string_view flag, const std::string& value,
                    const std::vector<std::string>& choices) {
  if (std::ranges::find(choices, value) == choices.end())
    throw InvalidArgument(
        fmt::format("--{} {}: unknown; {}", flag, value, suggestion(value, choices)));
}

bool on_off(std::string_view flag, const std::string& value) {
  require_choice(flag, value, {"on", "off"});
  return value == "on";
}

std::int64_t bytes_of(std::string_view flag, const std::string& value) {
  try {
    return parse_bytes(value);
  } catch (const InvalidArgument& error) {
    throw InvalidArgument(fmt::format("--{} {}: {}", flag, value, error.what()));
  }
}

void take_last_words(CLI::App& app) {
  for (CLI::Option* option : app.get_options())
    if (option->get_items_expected_max() == 1) option->take_last();
}

}  // namespace ashlar::cli
