// ashlar completion: what a shell offers after Tab, made of the commands themselves.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <map>

#include "ashlar/nn/language_model.hpp"
#include "cli/commands.hpp"
#include "cli/flags/flag_values.hpp"

namespace ashlar::cli {
namespace {

// In it: a case for each command, the commands.
constexpr const char* kScript = R"script(# In ~/.bashrc: eval "$(ashlar completion)"
_ashlar() {{
  local word="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}" words=''
  case "${{COMP_WORDS[1]}}" in
{}  esac
  if [ "$COMP_CWORD" = 1 ]; then words='{}'; fi
  COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o default -F _ashlar ashlar
)script";

std::vector<std::string> flags_of(const CLI::App& app) {
  std::vector<std::string> flags;
  for (const CLI::Option* option : app.get_options())
    for (const std::string& name : option->get_lnames()) flags.push_back("--" + name);
  return flags;
}

/// What may follow a flag.
std::vector<std::string> values_of(const CLI::Option& option) {
  return option.check_lname("model") ? model_presets() : words_of(option);
}

/// Flags with the same values share a case.
std::string cases_of(const CLI::App& app) {
  std::map<std::string, std::vector<std::string>> flags;  // by their values
  for (const CLI::Option* option : app.get_options()) {
    const std::string values = fmt::format("{}", fmt::join(values_of(*option), " "));
    for (const std::string& name : option->get_lnames())
      if (!values.empty()) flags[values].push_back("--" + name);
  }
  std::string cases;
  for (const auto& [values, names] : flags)
    cases += fmt::format("        {}) words='{}' ;;\n", fmt::join(names, "|"), values);
  return cases;
}

std::string bash_script(const CLI::App& app) {
  std::vector<std::string> commands;
  std::string cases;
  for (const CLI::App* sub : app.get_subcommands([](const CLI::App*) { return true; })) {
    commands.push_back(sub->get_name());
    cases += fmt::format("    {})\n      words='{}'\n      case \"$before\" in\n{}      esac ;;\n",
                         sub->get_name(), fmt::join(flags_of(*sub), " "), cases_of(*sub));
  }
  return fmt::format(fmt::runtime(kScript), cases, fmt::join(commands, " "));
}

}  // namespace

void add_completion(CLI::App& app, Command& command) {
  CLI::App& sub = *app.add_subcommand("completion", "A script for bash: what Tab offers");
  sub.footer("Example: eval \"$(ashlar completion)\"");
  sub.callback([&app, &command] {
    command = [&app] {
      fmt::print("{}", bash_script(app));
      return 0;
    };
  });
}

}  // namespace ashlar::cli
