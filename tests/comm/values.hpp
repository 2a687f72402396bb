// Random flats that every rank can compute for every other, and plain oracles over them.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "ashlar/buffer.hpp"
#include "ashlar/communicator.hpp"
#include "support/elements.hpp"

namespace ashlar::test {

/// Owned elements of any type; sized for at least one, so that empty views have memory.
class Flat {
 public:
  Flat(DType dtype, std::int64_t count, MemoryResource& resource = host_memory())
      : dtype_(dtype),
        count_(count),
        buffer_(resource, std::max<std::int64_t>(count * size_of(dtype), 1),
                Category::communication) {
    std::memset(buffer_.data(), 0x5a, static_cast<std::size_t>(buffer_.bytes()));
  }
  DType dtype() const { return dtype_; }
  std::int64_t count() const { return count_; }
  TensorView view() const { return buffer_.view(dtype_, {count_}); }
  TensorView part(std::int64_t first, std::int64_t count) const {
    return view().flat_slice(first, count);
  }
  double get(std::int64_t i) const { return element(view(), i); }
  void set(std::int64_t i, double value) { set_element(view(), i, value); }

 private:
  DType dtype_;
  std::int64_t count_;
  Buffer buffer_;
};

inline bool is_float(DType dtype) {
  return dtype == DType::f32 || dtype == DType::bf16 || dtype == DType::f16 || dtype == DType::f64;
}

/// Whole numbers from 0 to 20 for integers, magnitudes over six binary orders for floats.
inline void fill(Flat& flat, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  for (std::int64_t i = 0; i < flat.count(); ++i) {
    const double unit = static_cast<double>(random() >> 11) * 0x1p-53;
    flat.set(i, is_float(flat.dtype()) ? std::ldexp(unit - 0.5, static_cast<int>(random() % 6))
                                       : std::floor(unit * 21));
  }
}
inline Flat filled(DType dtype, std::int64_t count, std::uint64_t seed,
                   MemoryResource& resource = host_memory()) {
  Flat flat(dtype, count, resource);
  fill(flat, seed);
  return flat;
}

inline bool same_bits(const TensorView& a, const TensorView& b) {
  return a.bytes() == b.bytes() &&
         std::memcmp(a.data, b.data, static_cast<std::size_t>(a.bytes())) == 0;
}

/// Element i of a sum over ranks in rank order: in double for f64 and integers, else in float.
inline double sum_at(const std::vector<Flat>& sends, std::int64_t i) {
  if (sends[0].dtype() == DType::f64 || !is_float(sends[0].dtype())) {
    double sum = sends[0].get(i);
    for (std::size_t r = 1; r < sends.size(); ++r) sum += sends[r].get(i);
    return sum;
  }
  float sum = static_cast<float>(sends[0].get(i));
  for (std::size_t r = 1; r < sends.size(); ++r) sum += static_cast<float>(sends[r].get(i));
  return sum;
}

}  // namespace ashlar::test
