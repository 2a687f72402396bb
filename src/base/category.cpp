// Names of memory categories.
#include "ashlar/category.hpp"

namespace ashlar {
namespace {

constexpr PerCategory<std::string_view> kNames{
    "parameter",  "gradient",      "optimizer_state", "gathered_parameter",
    "activation", "communication", "workspace",       "input"};

}  // namespace

std::string_view name_of(Category category) {
  return kNames.at(static_cast<std::size_t>(category));
}

}  // namespace ashlar
