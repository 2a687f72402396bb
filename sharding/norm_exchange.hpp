// The squares of every rank's part of the gradients on all ranks, in one small all-gather that may
// travel with others.
#pragma once

#include <algorithm>
#include <vector>

#include "ashlar/communicator.hpp"
#include "sharding/flat_update.hpp"

namespace ashlar {

class NormExchange {
 public:
  NormExchange(std::size_t flats, int ranks)
      : ranks_(static_cast<std::size_t>(ranks)),
        mine_(flats + 1),
        all_((flats + 1) * ranks_),
        squares_(flats * ranks_) {}

  /// @param squares of this rank, by flat. @param touched whether it has any gradient at all
  void set(const std::vector<double>& squares, bool touched) {
    std::ranges::copy(squares, mine_.begin());
    mine_.back() = touched ? 1 : 0;
  }
  /// What an all-gather is to carry.
  Transfer transfer() {
    return {{mine_.data(), DType::f64, {static_cast<std::int64_t>(mine_.size())}},
            {all_.data(), DType::f64, {static_cast<std::int64_t>(all_.size())}}};
  }
  void exchange(Communicator& communicator) {
    const WaitsAtOnce alone(communicator);
    const Transfer norms = transfer();
    communicator.all_gather({&norms, 1}, "squared norms").wait();
  }

  // After the all-gather; the same on every rank.
  bool touched() const {
    for (std::size_t end = mine_.size(); end <= all_.size(); end += mine_.size())
      if (all_[end - 1] > 0) return true;
    return false;
  }
  double norm() {
    const std::size_t flats = mine_.size() - 1;
    for (std::size_t rank = 0; rank < ranks_; ++rank)
      std::copy_n(all_.begin() + static_cast<std::ptrdiff_t>(rank * mine_.size()), flats,
                  squares_.begin() + static_cast<std::ptrdiff_t>(rank * flats));
    return norm_of(squares_, ranks_);
  }

 private:
  std::size_t ranks_;
  std::vector<double> mine_;     // by flat, then whether there is a gradient
  std::vector<double> all_;      // by rank
  std::vector<double> squares_;  // by rank and flat
};

}  // namespace ashlar
