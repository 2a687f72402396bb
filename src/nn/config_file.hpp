// A Hugging Face config.json: values by key, and complaints that name file and key. A null is as
// good as nothing.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

namespace ashlar {

/// Whether the name of a model is that of a file.
bool is_config_path(const std::string& name);

class ConfigFile {
 public:
  /// @param family for messages: "GPT-2". @throws InvalidArgument unless it is a JSON object.
  ConfigFile(const std::string& path, std::string family);

  bool has(const char* key) const { return find(key) != nullptr; }
  bool is(const char* key, const char* value) const { return has(key) && *find(key) == value; }

  /// Whole numbers from 1 to 2^31.
  std::int64_t size(const char* key) const;
  std::int64_t size(const char* key, std::int64_t otherwise) const;
  double positive(const char* key, double otherwise) const;
  bool flag(const char* key, bool otherwise) const;
  /// A token, a list of tokens, or none. @param vocabulary they are below it.
  std::vector<std::int64_t> tokens(const char* key, std::int64_t vocabulary) const;

  /// @throws InvalidArgument unless the key is absent or has one of these values.
  void require(const char* key, std::initializer_list<const char*> accepted) const;
  void require_flag(const char* key, bool supported) const;
  /// The same of a list.
  void require_holds(const char* key, const char* value) const;

  /// The object below a key, with the same complaints; empty where there is none.
  ConfigFile below(const char* key) const;

  /// Sizes that no machine holds are a slip of the pen; a trace of them would take for ever.
  /// @param sizes the keys to name, with their values.
  void require_plausible(const char* layers_key, std::int64_t layers, double parameters,
                         std::initializer_list<std::pair<const char*, std::int64_t>> sizes) const;

  /// @throws InvalidArgument "FILE: <complaint>".
  [[noreturn]] void refuse(const std::string& complaint) const;

 private:
  ConfigFile() = default;
  const nlohmann::json* find(const char* key) const;  // null: absent
  std::string named(const char* key) const;           // "'key' is 5"

  std::string path_, family_, prefix_;
  nlohmann::json json_;
};

}  // namespace ashlar
