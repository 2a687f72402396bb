// Flags of the image examples: bad ones are InvalidArgument with one line.
#pragma once

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <string_view>

#include "ashlar/error.hpp"

namespace vision {

/// False when help was asked for, and printed to `help`.
inline bool parse(CLI::App& app, int argc, const char* const* argv, std::string& help) {
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    help = app.help();
    return false;
  } catch (const CLI::ParseError& error) {
    throw ashlar::InvalidArgument(error.what());
  }
  return true;
}

/// @throws InvalidArgument naming the flag unless `holds`.
template <typename T>
void require_flag(bool holds, std::string_view flag, const T& value, std::string_view remedy) {
  if (!holds) throw ashlar::InvalidArgument(fmt::format("{} {}: {}", flag, value, remedy));
}

}  // namespace vision
