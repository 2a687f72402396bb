// Parameters at stage 3: whole while somebody holds a lease of their unit, and fetched ahead in the
// order that the last step had.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "ashlar/buffer.hpp"
#include "ashlar/communicator.hpp"
#include "sharding/element_ops.hpp"
#include "sharding/flat_values.hpp"
#include "sharding/released_guard.hpp"

namespace ashlar {

class UnitGatherer {
 public:
  /// @param states "<flat>/parameter" of every flat: its own [shard]
  /// @param pool of whole units
  /// @param guard that pool, where it catches who touches what was released; else null
  UnitGatherer(const FlatLayout& layout, const StateViews& states, ElementOps& ops,
               MemoryResource& pool, Communicator& communicator, int prefetch,
               ReleasedGuard* guard);
  ~UnitGatherer();
  UnitGatherer(const UnitGatherer&) = delete;
  UnitGatherer& operator=(const UnitGatherer&) = delete;

  /// Collective. The unit is whole on return, until as many release()s.
  void acquire(int unit);
  void release(int unit) noexcept;
  bool held(int unit) const { return units_[static_cast<std::size_t>(unit)].leases > 0; }
  /// A held parameter.
  TensorView whole(int parameter) const;
  /// Parameters are about to change: what was fetched ahead is dropped. Collective.
  /// @throws InvalidArgument naming a unit that is still held, or the first that ranks have
  /// gathered in another order since the last step.
  void end_step();

 private:
  struct Unit {
    std::vector<int> flats;
    std::vector<Buffer> memory;  // by flat; empty: not here
    Work work;
    int leases = 0;
    bool awaited = false;  // fetched ahead, or kept, for the next acquire
  };

  Unit& unit(int u) { return units_[static_cast<std::size_t>(u)]; }
  void start(int u);
  void drop(int u) noexcept;
  void drop_awaited();
  void prefetch();
  void require_same_order();

  const FlatLayout& layout_;
  const StateViews& states_;
  ElementOps& ops_;
  MemoryResource& pool_;
  ReleasedGuard* guard_;
  Communicator& communicator_;
  int prefetch_;
  std::vector<Unit> units_;
  std::vector<std::string> order_;               // of units acquired since the last step
  std::pair<int, int> last_{-1, -1};             // units acquired before
  std::map<std::pair<int, int>, int> follower_;  // of two units in a row, when last seen
};

}  // namespace ashlar
