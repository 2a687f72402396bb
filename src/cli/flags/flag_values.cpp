#include "cli/flags/flag_values.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <sstream>

#include "ashlar/memory_resource.hpp"
#include "base/nearest.hpp"
#include "base/printable.hpp"

namespace ashlar::cli {

void require(bool holds, std::string_view flag, std::string_view value, std::string_view remedy) {
  if (!holds) throw InvalidArgument(printable(fmt::format("--{} {}: {}", flag, value, remedy)));
}

void require_choice(std::string_view flag, const std::string& value,
                    const std::vector<std::string>& choices) {
  if (std::ranges::find(choices, value) == choices.end())
    require(false, flag, value, fmt::format("unknown; {}", suggestion(value, choices)));
}

CLI::Option* add_choice(CLI::App& app, const char* flag, std::string& value,
                        const std::vector<std::string>& words, const char* meaning) {
  CLI::Option* option = app.add_option(flag, value, meaning);
  option->check([flag, words](const std::string& word) {
    if (!word.empty()) require_choice(std::string_view(flag).substr(2), word, words);
    return std::string();
  });
  show_words(*option, words);
  return option;
}

void show_words(CLI::Option& option, std::vector<std::string> words, std::string_view other) {
  if (!other.empty()) words.emplace_back(other);
  option.type_name(fmt::format("{}", fmt::join(words, "|")));
}

std::vector<std::string> words_of(const CLI::Option& option) {
  std::istringstream type(option.get_type_name());
  std::vector<std::string> words;
  for (std::string word; std::getline(type, word, '|');)
    if (std::ranges::any_of(word, [](char c) { return c < 'A' || c > 'Z'; })) words.push_back(word);
  return words;
}

std::int64_t bytes_of(std::string_view flag, const std::string& value) {
  try {
    return parse_bytes(value);
  } catch (const InvalidArgument& error) {
    throw InvalidArgument(printable(fmt::format("--{} {}: {}", flag, value, error.what())));
  }
}

void take_last_words(CLI::App& app) {
  const auto filled = [](const std::string& word) {
    return std::string(word.empty() ? "is empty; give a value, or leave it out" : "");
  };
  for (CLI::Option* option : app.get_options())
    if (option->get_items_expected_max() == 1) option->take_last()->check(filled);
}

void refuse(const CLI::App& app, std::span<const std::string_view> flags, std::string_view why) {
  for (const std::string_view flag : flags)
    if (app.count(std::string(flag)) > 0) throw InvalidArgument(fmt::format("{}: {}", flag, why));
}

void refuse_others(const CLI::App& app, std::span<const std::string_view> flags,
                   std::string_view why) {
  for (const CLI::Option* option : app.get_options())
    if (option->count() > 0 && std::ranges::find(flags, option->get_name()) == flags.end())
      throw InvalidArgument(fmt::format("{}: {}", option->get_name(), why));
}

void add_unsupported(CLI::App& app, OtherParallelism& asked) {
  add_integer(app, "--tensor-parallel", asked.tensor, "not supported");
  add_integer(app, "--pipeline-parallel", asked.pipeline, "not supported");
  add_integer(app, "--expert-parallel", asked.expert, "not supported");
}

void refuse(const OtherParallelism& asked) {
  for (const auto& [flag, value] :
       {std::pair{"tensor-parallel", asked.tensor}, std::pair{"pipeline-parallel", asked.pipeline},
        std::pair{"expert-parallel", asked.expert}})
    require(value == 1, flag, std::to_string(value),
            "not supported; Ashlar shards data-parallel training (ZeRO) alone");
}

}  // namespace ashlar::cli
