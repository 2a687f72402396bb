#include "graph/recompute_search.hpp"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "base/math/philox.hpp"
#include "graph/cost.hpp"
#include "graph/recompute_load.hpp"

namespace ashlar {
namespace {

constexpr std::int64_t kMostSketches = 64;      // that the full passes price first
constexpr std::int64_t kLeastPriced = 2;        // keeping everything, and remaking whole units
constexpr std::int64_t kNodesPriced = 100'000;  // compiled by all full passes together
using Group = std::vector<ValueId>;

/// A step of the descent, priced by RecomputeLoad alone.
struct Sketch {
  Remade remade;
  std::int64_t peak = 0;
};

/// From keeping everything down to the smallest peak that single steps reach.
class Descent {
 public:
  Descent(const Graph& graph, const Backend& backend, bool gathers)
      : load_(graph, backend, gathers) {
    const Remade units = units_remade(graph);
    for (ValueId id = 0; id < static_cast<ValueId>(graph.values.size()); ++id) {
      if (!load_.candidate(id)) continue;
      candidates_.push_back(id);
      if (units[static_cast<std::size_t>(id)]) units_[load_.unit(id)].push_back(id);
    }
  }

  const std::vector<ValueId>& candidates() const { return candidates_; }

  std::vector<Sketch> run() {
    std::vector<Sketch> sketches{sketch()};
    while (const Group* best = best_group()) {
      const Group group = *best;
      for (const ValueId id : group) load_.set(id, true);
      forget(group);
      sketches.push_back(sketch());
    }
    return sketches;
  }

  /// Beyond the last sketch, one whole unit after the other: the passes may still see lower peaks.
  std::vector<Remade> whole_units() {
    std::vector<Remade> more;
    for (const auto& [unit, group] : units_) {
      const Remade before = load_.remade();
      for (const ValueId id : group) load_.set(id, true);
      if (load_.remade() != before) more.push_back(load_.remade());
    }
    return more;
  }

  /// Keeps again what the peak does not need to be remade, the dearest first.
  Sketch prune(const Sketch& from) {
    for (const ValueId id : candidates_) load_.set(id, from.remade[static_cast<std::size_t>(id)]);
    const std::int64_t peak = load_.peak();
    for (const ValueId id : candidates_) {
      if (!load_.remade()[static_cast<std::size_t>(id)]) continue;
      load_.set(id, false);
      if (load_.peak() > peak) load_.set(id, true);
    }
    return sketch();
  }

 private:
  struct Offer {
    Group group;
    double bytes_per_flop = 0;
  };

  Sketch sketch() const { return {load_.remade(), load_.peak()}; }

  /// The group that frees most bytes per operation at the peak; null when none does.
  const Group* best_group() {
    const int instant = load_.peak_instant();
    const Offer* best = nullptr;
    for (const ValueId id : candidates_) {
      if (!load_.kept_over(id, instant)) continue;
      const Offer& offer = offer_of(id, instant);
      if (offer.bytes_per_flop > (best == nullptr ? 0 : best->bytes_per_flop)) best = &offer;
    }
    return best == nullptr ? nullptr : &best->group;
  }

  /// The best way to free a value; remembered until its unit changes.
  const Offer& offer_of(ValueId id, int instant) {
    const auto [known, fresh] = offers_.try_emplace(id);
    if (!fresh) return known->second;
    Offer& offer = known->second;
    const auto consider = [&](Group group) {
      const double value = price(group, instant);
      if (value > offer.bytes_per_flop) offer = {std::move(group), value};
    };
    consider({id});
    consider(with_inputs(id));
    consider(units_[load_.unit(id)]);
    return offer;
  }

  /// The value, and what it is made of where that would have to be kept longer for it.
  Group with_inputs(ValueId id) const {
    Group group{id};
    for (std::size_t i = 0; i < group.size(); ++i) {
      for (const ValueId input : load_.extended(group[i])) {
        const bool known = std::find(group.begin(), group.end(), input) != group.end();
        if (!known && load_.candidate(input)) group.push_back(input);
      }
    }
    return group;
  }

  /// Bytes freed at the instant per operation.
  double price(const Group& group, int instant) {
    const std::int64_t before = load_.at(instant);
    const double flops = load_.flops();
    Group changed;
    for (const ValueId id : group) {
      if (load_.remade()[static_cast<std::size_t>(id)]) continue;
      changed.push_back(id);
      load_.set(id, true);
    }
    const auto freed = static_cast<double>(before - load_.at(instant));
    const double added = load_.flops() - flops;
    for (auto id = changed.rbegin(); id != changed.rend(); ++id) load_.set(*id, false);
    return freed / (added + 1);
  }

  void forget(const Group& group) {
    for (const ValueId id : group)
      std::erase_if(offers_,
                    [&](const auto& offer) { return load_.unit(offer.first) == load_.unit(id); });
  }

  RecomputeLoad load_;
  std::vector<ValueId> candidates_;
  std::map<int, Group> units_;  // by unit: what remaking it as a whole remakes
  std::map<ValueId, Offer> offers_;
};

/// Sketches spread evenly over the peaks, `count` or fewer, the first and the lowest among them.
std::vector<Sketch> spread(const std::vector<Sketch>& all, std::int64_t count) {
  const auto lowest = std::min_element(
      all.begin(), all.end(), [](const Sketch& a, const Sketch& b) { return a.peak < b.peak; });
  const std::int64_t step = std::max<std::int64_t>(1, (all.front().peak - lowest->peak) / count);
  std::vector<Sketch> chosen{all.front()};
  for (auto sketch = all.begin(); sketch <= lowest; ++sketch) {
    if (sketch->peak <= chosen.back().peak - step || sketch == lowest) chosen.push_back(*sketch);
  }
  return chosen;
}

/// Choices that the full passes have priced, none worse than another in both work and height.
class Front {
 public:
  Front(const Graph& joint, const std::function<PlannedHeight(const Graph&)>& planned_height)
      : joint_(joint), planned_height_(planned_height), base_(flops_of(joint)) {}

  /// How many more choices may be priced.
  std::int64_t left() const { return left_; }

  void price(const Remade& remade) {
    if (left_ <= 0 || !priced_.insert(remade).second) return;
    const Graph graph = rematerialize(joint_, remade);
    const auto [height, nodes] = planned_height_(graph);
    if (priced_.size() == 1) left_ = std::max(kLeastPriced, kNodesPriced / (nodes + 1));
    --left_;
    const RecomputeChoice choice{remade, height, flops_of(graph) - base_};
    const auto worse = [&](const RecomputeChoice& a, const RecomputeChoice& b) {
      return a.height >= b.height && a.extra_flops >= b.extra_flops;
    };
    for (const RecomputeChoice& other : choices_) {
      if (worse(choice, other)) return;
    }
    std::erase_if(choices_, [&](const RecomputeChoice& other) { return worse(other, choice); });
    const auto after = std::find_if(choices_.begin(), choices_.end(), [&](const auto& other) {
      return other.extra_flops > choice.extra_flops;
    });
    choices_.insert(after, choice);
  }

  /// With what is left to price: changes of one value, then of two, to the best so far; then draws.
  void refine(const std::vector<ValueId>& candidates) {
    if (left_ <= 0) return;
    std::vector<Group> moves;
    for (const ValueId id : candidates) moves.push_back({id});
    for (std::size_t i = 0; i < candidates.size(); ++i) {
      for (std::size_t j = 0; j < i; ++j) moves.push_back({candidates[j], candidates[i]});
    }
    const std::int64_t draws = left_;
    for (std::int64_t draw = 0; draw < draws && left_ > 0; ++draw) {
      for (std::size_t i = 0; i < moves.size() && left_ > 0;) i = improve(moves[i]) ? 0 : i + 1;
      Group random;
      for (const ValueId id : candidates) {
        const auto word =
            philox(0, static_cast<std::uint64_t>(draw), static_cast<std::uint64_t>(id))[0];
        if (word % 2 == 0) random.push_back(id);
      }
      price_changed(Remade(joint_.values.size(), false), random);
    }
  }

  std::vector<RecomputeChoice> take() { return std::move(choices_); }

 private:
  void price_changed(Remade remade, const Group& changed) {
    for (const ValueId id : changed)
      remade[static_cast<std::size_t>(id)] = !remade[static_cast<std::size_t>(id)];
    price(remade);
  }

  /// Prices the change to every choice; true when a choice was found that belongs here.
  bool improve(const Group& changed) {
    const auto before = choices_;
    for (const RecomputeChoice& from : before) price_changed(from.remade, changed);
    return !std::ranges::equal(choices_, before, {}, &RecomputeChoice::remade,
                               &RecomputeChoice::remade);
  }

  const Graph& joint_;
  const std::function<PlannedHeight(const Graph&)>& planned_height_;
  std::int64_t left_ = 1;  // the first says how much work one is
  double base_;
  std::set<Remade> priced_;
  std::vector<RecomputeChoice> choices_;  // by rising work
};

}  // namespace

std::vector<RecomputeChoice> recompute_choices(
    const Graph& joint, const Backend& backend, bool gathers,
    const std::function<PlannedHeight(const Graph&)>& planned_height) {
  Front front(joint, planned_height);
  front.price(Remade(joint.values.size(), false));
  for (const Remade& classic :
       {units_remade(joint), cheap_to_remake(joint), attention_remade(joint)})
    front.price(classic);  // the lowest first, where few are priced
  if (front.left() <= 0) return front.take();
  Descent descent(joint, backend, gathers);
  Remade everything(joint.values.size(), false);
  for (const ValueId id : descent.candidates()) everything[static_cast<std::size_t>(id)] = true;
  front.price(everything);
  const std::int64_t sketches = std::clamp<std::int64_t>(front.left(), 1, kMostSketches);
  const std::vector<Sketch> descended = descent.run();
  const std::vector<Remade> beyond = descent.whole_units();
  for (const Sketch& sketch : spread(descended, sketches))
    front.price(descent.prune(sketch).remade);
  for (const Remade& remade : beyond) front.price(remade);
  front.refine(descent.candidates());
  return front.take();
}

}  // namespace ashlar
