#include "train_gpt/report.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <optional>
#include <vector>

#include "ashlar/memory_resource.hpp"

namespace train_gpt {
namespace {

constexpr std::size_t kMostColumns = 4;

using Number = std::function<std::int64_t(const RankReport&)>;

class Table {
 public:
  explicit Table(std::span<const RankReport> ranks) : ranks_(ranks) {
    text_ = fmt::format("{:<24}{:>14}", "", "formula");
    if (ranks_.size() > kMostColumns)
      text_ += fmt::format("{:>14}{:>14}", "lowest rank", "highest rank");
    else
      for (std::size_t rank = 0; rank < ranks_.size(); ++rank)
        text_ += fmt::format("{:>14}", fmt::format("rank {}", rank));
    text_ += '\n';
  }

  void heading(std::string_view words) { text_ += fmt::format("{}\n", words); }

  void row(std::string_view name, std::optional<std::int64_t> formula, const Number& number) {
    std::vector<std::int64_t> values;
    for (const RankReport& rank : ranks_) values.push_back(number(rank));
    if (values.size() > kMostColumns) {
      const auto [low, high] = std::ranges::minmax(values);
      values = {low, high};
    }
    text_ += fmt::format("  {:<22}{:>14}", name, formula ? ashlar::format_bytes(*formula) : "");
    for (const std::int64_t value : values)
      text_ += fmt::format("{:>14}", ashlar::format_bytes(value));
    text_ += '\n';
  }

  std::string text() const { return text_; }

 private:
  std::span<const RankReport> ranks_;
  std::string text_;
};

void add_state(Table& table, const ModelStateBytes& formula) {
  table.heading("model state");
  table.row("parameter", formula.parameter, [](auto& rank) { return rank.state.parameter; });
  table.row("gradient", formula.gradient, [](auto& rank) { return rank.state.gradient; });
  table.row("optimizer state", formula.optimizer_state,
            [](auto& rank) { return rank.state.optimizer_state; });
  table.row("sum", formula.sum(), [](auto& rank) { return rank.state.sum(); });
}

void add_peaks(Table& table) {
  table.heading("peak of a step (each its own)");
  for (int i = 0; i < ashlar::kCategories; ++i) {
    std::string name(name_of(static_cast<ashlar::Category>(i)));
    std::ranges::replace(name, '_', ' ');
    table.row(name, std::nullopt,
              [i](auto& rank) { return rank.peak.category[static_cast<std::size_t>(i)]; });
  }
  table.row("total", std::nullopt, [](auto& rank) { return rank.peak.total; });
}

void add_traffic(Table& table, const TrafficFormula& formula) {
  table.heading("sent per step");
  for (int i = 0; i < ashlar::kTrafficKinds; ++i) {
    const auto kind = static_cast<ashlar::Traffic>(i);
    std::optional<std::int64_t> expected;
    if (kind == ashlar::Traffic::all_gather) expected = formula.all_gather;
    if (kind == ashlar::Traffic::reduce_scatter) expected = formula.reduce_scatter;
    if (kind == ashlar::Traffic::all_reduce) expected = formula.all_reduce;
    std::string name(name_of(kind));
    std::ranges::replace(name, '_', ' ');
    table.row(name, expected, [i](auto& rank) { return rank.sent[static_cast<std::size_t>(i)]; });
  }
}

}  // namespace

ZeroCase zero_case(const Options& options, int ranks, bool tied, const ashlar::FlatLayout& layout) {
  ZeroCase zero;
  zero.trainable = layout.elements(true);
  zero.frozen = layout.elements() - zero.trainable;
  zero.ranks = layout.ranks();
  zero.replicas = ranks / layout.ranks();
  zero.stage = options.stage;
  zero.bf16 = options.precision == "bf16";
  zero.bf16_wire = options.reduce_dtype == "bf16";
  zero.accumulate = options.accumulate;
  zero.reduce_each = options.reduce == "each";
  zero.layer_order = options.order == "layers";
  zero.reshard = options.reshard;
  zero.padded = layout.padded();
  zero.padded_trainable = layout.padded(true);
  const int head = static_cast<int>(layout.units().size()) - 1;
  int reached = head;  // the first unit that backward runs in
  for (const ashlar::Parameter& parameter : layout.parameters())
    if (parameter.trainable) reached = std::min(reached, parameter.unit);
  for (const ashlar::Flat& flat : layout.flats()) {
    const bool embedding = flat.unit == 0;
    const bool once = embedding ? !tied : flat.unit == head || flat.unit < reached;
    if (once) zero.padded_once += flat.padded;
  }
  return zero;
}

std::string report_table(const ZeroCase& zero, std::span<const RankReport> ranks) {
  Table table(ranks);
  add_state(table, state_formula(zero));
  add_peaks(table);
  add_traffic(table, traffic_formula(zero));
  return table.text();
}

}  // namespace train_gpt
