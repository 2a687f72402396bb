// The kernel that sums, in every order of its threads or on a GPU, against the CPU's.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <span>
#include <vector>

#include "comm/reduce.hpp"
#include "comm/values.hpp"
#include "cuda/kernels/reduce_parts.hpp"
#include "emulated/device_call.hpp"

namespace ashlar {
namespace {

namespace backend = test::backend;
using test::Flat;

struct Case {
  DType source;
  DType recv;
  int ranks;
  bool accumulate = false;
  bool round = false;
};

std::vector<std::byte> bytes_of(const Flat& flat) {
  const TensorView view = flat.view();
  return {view.data, view.data + view.bytes()};
}

struct Sum {
  std::vector<std::byte> values;
  double squares = 0;
};

Sum sum_on_cpu(const Case& c, const std::vector<Flat>& parts, std::int64_t count) {
  std::vector<const std::byte*> sources;
  for (const Flat& part : parts) sources.push_back(part.view().data);
  const Flat recv = test::filled(c.recv, count, 99);
  Sum sum;
  detail::reduce({.sources = sources,
                  .source_type = c.source,
                  .recv = recv.view().data,
                  .recv_type = c.recv,
                  .count = count,
                  .accumulate = c.accumulate,
                  .round_to_bf16 = c.round,
                  .sum_of_squares = &sum.squares});
  sum.values = bytes_of(recv);
  return sum;
}

/// Device memory of a test.
template <typename T>
class Array {
 public:
  explicit Array(std::size_t count)
      : bytes_(count * sizeof(T)), memory_(backend::allocate(bytes_)) {}
  explicit Array(const std::vector<T>& values) : Array(values.size()) {
    backend::copy(memory_.get(), values.data(), bytes_);
  }
  T* data() const { return reinterpret_cast<T*>(memory_.get()); }
  std::vector<std::byte> bytes() const {
    std::vector<std::byte> host(bytes_);
    backend::copy(host.data(), memory_.get(), bytes_);
    return host;
  }

 private:
  std::size_t bytes_;
  std::shared_ptr<std::byte> memory_;
};

/// As rank `rank`, in pieces of `piece` elements: the sum of squares, then the values.
std::vector<std::byte> sum_by_kernel(const Case& c, const std::vector<Flat>& parts,
                                     std::int64_t count, int rank, std::int64_t piece) {
  const Array<std::byte> recv(bytes_of(test::filled(c.recv, count, 99)));
  const Array<double> squares(1);
  const Array<double> partials(static_cast<std::size_t>(piece / kNormBlock));
  const Array<std::byte> own(bytes_of(parts[static_cast<std::size_t>(rank)]));
  for (std::int64_t first = 0; first == 0 || first < count; first += piece) {
    const std::int64_t here = std::min(piece, count - first);
    std::vector<std::byte> others;
    for (int r = 0; r < c.ranks; ++r) {
      if (r == rank) continue;
      const TensorView part = parts[static_cast<std::size_t>(r)].part(first, here);
      others.insert(others.end(), part.data, part.data + part.bytes());
    }
    const Array<std::byte> arrived(others);
    cuda::reduce_parts({.own = own.data() + first * size_of(c.source),
                        .others = arrived.data(),
                        .stride = here,
                        .rank = rank,
                        .ranks = c.ranks,
                        .source_type = c.source,
                        .recv = recv.data() + first * size_of(c.recv),
                        .recv_type = c.recv,
                        .count = here,
                        .accumulate = c.accumulate,
                        .round_to_bf16 = c.round,
                        .squares = squares.data(),
                        .first_piece = first == 0,
                        .partials = partials.data()},
                       backend::stream());
    backend::stream().synchronize();
  }
  std::vector<std::byte> results = squares.bytes();
  const std::vector<std::byte> values = recv.bytes();
  results.insert(results.end(), values.begin(), values.end());
  return results;
}

double squares_in(const std::vector<std::byte>& results) {
  double squares = 0;
  std::memcpy(&squares, results.data(), sizeof squares);
  return squares;
}

}  // namespace

TEST_CASE("kernels: reduce_parts has the bits of the CPU's reduce in every order") {
  const Case cases[] = {
      {DType::f32, DType::f32, 3, true},         {DType::bf16, DType::bf16, 4, true},
      {DType::bf16, DType::f32, 2, false, true}, {DType::f32, DType::bf16, 3},
      {DType::f16, DType::f16, 3, true},         {DType::f16, DType::f32, 1, true, true},
      {DType::f32, DType::f16, 2, true, true},   {DType::f64, DType::f64, 3, true},
      {DType::i32, DType::i32, 3, true},         {DType::i64, DType::i64, 2},
      {DType::u8, DType::u8, 4, true},
  };
  for (const Case& c : cases)
    for (const std::int64_t count : {std::int64_t{1}, 2 * kNormBlock, 2 * kNormBlock + 19}) {
      CAPTURE(name_of(c.source));
      CAPTURE(name_of(c.recv));
      CAPTURE(count);
      std::vector<test::Flat> parts;
      for (int r = 0; r < c.ranks; ++r)
        parts.push_back(test::filled(c.source, count, 10 + static_cast<std::uint64_t>(r)));
      const Sum expected = sum_on_cpu(c, parts, count);
      for (const std::int64_t piece : {kNormBlock, 4 * kNormBlock}) {
        const std::vector<std::byte> results =
            backend::repeat([&] { return sum_by_kernel(c, parts, count, c.ranks / 2, piece); });
        CHECK(std::ranges::equal(std::span(results).subspan(sizeof(double)), expected.values));
        CHECK(squares_in(results) == expected.squares);
      }
    }
}

TEST_CASE("kernels: reduce_parts of nothing sets the squares to nothing") {
  const Array<double> squares(1);
  cuda::reduce_parts({.count = 0, .squares = squares.data()}, backend::stream());
  CHECK(squares_in(squares.bytes()) == 0.0);
}

TEST_CASE("kernels: reduce_parts of one rank in place, with squares and without") {
  const std::int64_t count = kNormBlock + 21;
  for (const bool round : {false, true}) {
    CAPTURE(round);
    const Case c{DType::f32, DType::f32, 1, false, round};
    std::vector<test::Flat> parts;
    parts.push_back(test::filled(DType::f32, count, 10));
    const Sum expected = sum_on_cpu(c, parts, count);
    for (const bool squared : {false, true}) {
      CAPTURE(squared);
      const Array<std::byte> values(bytes_of(parts[0]));
      const Array<double> squares(1), partials(2);
      cuda::reduce_parts({.own = values.data(),
                          .recv = values.data(),
                          .count = count,
                          .round_to_bf16 = round,
                          .squares = squared ? squares.data() : nullptr,
                          .partials = partials.data()},
                         backend::stream());
      CHECK(values.bytes() == expected.values);
      if (squared) CHECK(squares_in(squares.bytes()) == expected.squares);
    }
  }
}

}  // namespace ashlar
