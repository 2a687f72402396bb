// Values of flags: how words become numbers, and complaints in the words that all programs share.
#pragma once

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ashlar/error.hpp"
#include "base/parse_number.hpp"

namespace ashlar::cli {

/// @throws InvalidArgument "--flag value: remedy" unless it holds.
void require(bool holds, std::string_view flag, std::string_view value, std::string_view remedy);
/// @throws InvalidArgument naming the nearest of the choices, or all.
void require_choice(std::string_view flag, const std::string& value,
                    const std::vector<std::string>& choices);
template <typename T>
void require_at_least(T value, T least, std::string_view flag) {
  require(value >= least, flag, fmt::format("{}", value), fmt::format("must be {} or more", least));
}

/// A flag that takes one of a few words; help shows them, completion offers them. A value is
/// checked when it is given: as require_choice. @param flag "--order"
CLI::Option* add_choice(CLI::App& app, const char* flag, std::string& value,
                        const std::vector<std::string>& words, const char* meaning);
/// Words that help shows and completion offers, of a flag that checks its values itself.
/// @param other what it takes besides, in capitals: "FILE"; empty: nothing
void show_words(CLI::Option& option, std::vector<std::string> words, std::string_view other = {});
/// What help shows of a flag as words, without those in capitals.
std::vector<std::string> words_of(const CLI::Option& option);

/// Of "25MiB". @throws InvalidArgument naming the flag.
std::int64_t bytes_of(std::string_view flag, const std::string& value);

/// CLI11 alone takes 010 for octal and what does not fit for the nearest that does.
/// @param flag "--batch"
template <typename Integer>
CLI::Option* add_integer(CLI::App& app, const char* flag, Integer& value, const char* meaning) {
  return app.add_option(flag, value, meaning)->transform([flag](const std::string& word) {
    Integer number = 0;
    if (!parse_number(word, number))
      throw InvalidArgument(fmt::format("{} {}: must be a whole number from 0 to {}", flag, word,
                                        std::numeric_limits<Integer>::max()));
    return std::to_string(number);
  });
}

/// Of a flag given twice the last word counts, so that scripts can append; lists keep all. An empty
/// word, such as a variable that is not set leaves, is refused.
void take_last_words(CLI::App& app);

/// No flag is taken and then ignored. @throws InvalidArgument "--flag: why" for the first of
/// `flags` that the user gave; refuse_others: that is none of them.
void refuse(const CLI::App& app, std::span<const std::string_view> flags, std::string_view why);
void refuse_others(const CLI::App& app, std::span<const std::string_view> flags,
                   std::string_view why);

/// Ranks that share a layer, divide the layers or divide the experts: words for what Ashlar does
/// not have, so that who asks gets a plain answer.
struct OtherParallelism {
  int tensor = 1, pipeline = 1, expert = 1;  // 1: none
};
void add_unsupported(CLI::App& app, OtherParallelism& asked);
/// @throws InvalidArgument unless all are 1.
void refuse(const OtherParallelism& asked);

inline constexpr const char* kUnsupported =
    "Tensor, pipeline and expert parallelism are not supported, nor is offload.";

}  // namespace ashlar::cli
