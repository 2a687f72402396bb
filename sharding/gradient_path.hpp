// What becomes of a gradient: into its bucket, over the ranks, into the norm, into the update.
#pragma once

#include <map>
#include <optional>
#include <string_view>
#include <vector>

#include "sharding/collective_ops.hpp"
#include "sharding/flat_states.hpp"

namespace ashlar {

/// Appends to a graph, as backward produces gradients, their packing and reduction; at the end
/// norm, clipping and update.
class GradientPath {
 public:
  /// @param differentiated the graph whose outputs are the gradients: one per parameter, or one per
  /// use where each is summed over the micro-batches for itself
  GradientPath(Tracer& tracer, const Graph& differentiated, const FlatLayout& layout,
               const ShardOptions& options, FlatStates& states);

  /// The whole local gradient of a trainable parameter, or that of its next use. When a unit is
  /// complete it joins the bucket; a bucket that has reached its size is reduced.
  void ready(std::string_view parameter, Value gradient);

  /// Ends the body: parameters without a gradient get zeros, what waits in the bucket is reduced.
  void finish_backward();
  /// The update section: local sums are reduced; norm, update and, where parameters or gradients
  /// are kept whole, gathers. @return the norm of the gradient, f64 scalar.
  Value finish();

 private:
  Value sum_over_micro_batches(int p, Value gradient);
  void unit_complete(int unit);
  void add_later_uses(int f);
  void join(int f);
  void flush();
  Value outgoing(int f);
  Value target(int f);
  bool rounds() const;
  void arrive(const std::vector<int>& flats, const std::vector<Value>& out);
  void cross();
  void cross_all();
  Value norm();
  void gather_gradients(int f);
  std::vector<std::vector<int>> updates() const;
  UpdateOperands operands_of(int f);
  void update_flats(const std::vector<int>& flats, Value factor);

  Tracer& tracer_;
  const FlatLayout& layout_;
  const ShardOptions& options_;
  FlatStates& states_;
  std::vector<Value> gradients_;                  // by parameter: local, or accumulated in place
  std::map<int, std::vector<Value>> later_uses_;  // by tied parameter: sums over micro-batches
  std::map<int, int> missing_;                    // by unit: gradients that are yet to come
  std::vector<int> summed_;  // flats whose local sums wait for the last micro-batch
  std::vector<int> bucket_;  // flats that wait for their reduction
  std::int64_t bucket_bytes_ = 0;
  /// A bucket between the sums of this group and those of all ranks; only with replicas.
  struct Crossing {
    std::vector<int> flats;
    Value sums;
  };
  std::optional<Crossing> in_group_;         // summed by the group
  std::optional<Crossing> crossing_;         // on its way over the replicas
  std::vector<std::vector<int>> in_groups_;  // buckets whose groups sum up the micro-batches first
  std::vector<int> order_;                   // flats as they were reduced
  std::map<int, Value>
      reduced_;  // by flat: own shard of the summed gradient, or the whole at stage 0
  std::map<int, Value> whole_;    // by flat: the whole gradient state after packing
  std::map<int, Value> squares_;  // by flat: f64 [1]
};

}  // namespace ashlar
