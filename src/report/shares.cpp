// Who holds the bytes of the peak, by other names than categories.
#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cmath>

#include "report/step_report.hpp"

namespace ashlar {
namespace {

using Sums = std::map<std::string, std::int64_t>;

/// "h.12.attn.c_attn.weight" -> "h.*.attn.c_attn".
std::string module_of(std::string_view parameter) {
  std::string module;
  const std::string_view path = parameter.substr(0, parameter.rfind('.'));
  for (std::size_t begin = 0; begin <= path.size();) {
    const std::size_t end = std::min(path.find('.', begin), path.size());
    const std::string_view part = path.substr(begin, end - begin);
    const bool number = !part.empty() && std::ranges::all_of(part, [](unsigned char c) {
      return std::isdigit(c) != 0;
    });
    module += fmt::format("{}{}", module.empty() ? "" : ".", number ? "*" : part);
    begin = end + 1;
  }
  return module;
}

/// "h.3/master" -> its flat; null for states that belong to none.
const Flat* flat_of(const CompiledStep& step, std::string_view state) {
  const std::string_view name = state.substr(0, state.rfind('/'));
  for (const Flat& flat : step.layout.flats())
    if (flat.name == name) return &flat;
  return nullptr;
}

void add_modules(const CompiledStep& step, const PlannedBlock& block, Sums& sums) {
  const Flat* flat = block.maker == nullptr ? flat_of(step, block.name) : nullptr;
  if (flat == nullptr) {
    sums[block.maker == nullptr ? "other" : "transients"] += block.bytes;
    return;
  }
  std::int64_t left = block.bytes;
  for (const Flat::Entry& entry : flat->entries) {
    const auto& parameter = step.layout.parameters()[static_cast<std::size_t>(entry.parameter)];
    const auto part = static_cast<std::int64_t>(std::llround(
        static_cast<double>(block.bytes) * static_cast<double>(entry.end - entry.begin) /
        static_cast<double>(flat->padded)));
    sums[module_of(parameter.name)] += part;
    left -= part;
  }
  sums["padding of flats"] += left;
}

std::string op_of(const PlannedBlock& block) {
  if (block.maker == nullptr) return block.kind.empty() ? "states" : block.kind;
  const std::string_view file = block.maker->where.file_name();
  return fmt::format("{} {}:{}", block.kind, file.substr(file.rfind('/') + 1),
                     block.maker->where.line());
}

}  // namespace

std::vector<Share> shares(const CompiledStep& step, const Footprint& footprint, ShareBy by) {
  Sums sums;
  for (const PlannedBlock& block : footprint.at_peak) {
    if (by == ShareBy::module)
      add_modules(step, block, sums);
    else if (by == ShareBy::op)
      sums[op_of(block)] += block.bytes;
    else
      sums[block.unit < 0 ? "no unit"
                          : step.layout.units()[static_cast<std::size_t>(block.unit)]] +=
          block.bytes;
  }
  std::vector<Share> list;
  for (const auto& [name, bytes] : sums)
    if (bytes != 0) list.push_back({name, bytes});
  std::ranges::stable_sort(list, std::greater(), &Share::bytes);
  return list;
}

}  // namespace ashlar
