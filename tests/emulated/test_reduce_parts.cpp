// The kernel that sums, in every order of its threads, against the CPU's.
#include <doctest/doctest.h>

#include "comm/reduce.hpp"
#include "comm/values.hpp"
#include "cuda/kernels/reduce_parts.hpp"
#include "emulator/buffer.hpp"
#include "emulator/run_in_all_orders.hpp"

namespace ashlar {
namespace {

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

/// As rank `rank`, in pieces of `piece` elements.
auto sum_by_kernel(const Case& c, const std::vector<Flat>& parts, std::int64_t count, int rank,
                   std::int64_t piece) {
  const emulator::Buffer<std::byte> recv(bytes_of(test::filled(c.recv, count, 99)));
  const emulator::Buffer<double> squares(1);
  const emulator::Buffer<double> partials(static_cast<std::size_t>(piece / kNormBlock));
  const emulator::Buffer<std::byte> own(bytes_of(parts[static_cast<std::size_t>(rank)]));
  for (std::int64_t first = 0; first == 0 || first < count; first += piece) {
    const std::int64_t here = std::min(piece, count - first);
    std::vector<std::byte> others;
    for (int r = 0; r < c.ranks; ++r) {
      if (r == rank) continue;
      const TensorView part = parts[static_cast<std::size_t>(r)].part(first, here);
      others.insert(others.end(), part.data, part.data + part.bytes());
    }
    const emulator::Buffer<std::byte> arrived(others);
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
                       {});
  }
  return std::make_tuple(recv.to_vector(), squares.to_vector());
}

}  // namespace

TEST_CASE("emulated: reduce_parts has the bits of the CPU's reduce in every order") {
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
      std::vector<Flat> parts;
      for (int r = 0; r < c.ranks; ++r)
        parts.push_back(test::filled(c.source, count, 10 + static_cast<std::uint64_t>(r)));
      const Sum expected = sum_on_cpu(c, parts, count);
      for (const std::int64_t piece : {kNormBlock, 4 * kNormBlock}) {
        const auto [values, squares] = emulator::run_in_all_orders(
            [&] { return sum_by_kernel(c, parts, count, c.ranks / 2, piece); });
        CHECK(values == expected.values);
        CHECK(squares[0] == expected.squares);
      }
    }
}

TEST_CASE("emulated: reduce_parts of nothing sets the squares to nothing") {
  const emulator::Buffer<double> squares(1);
  cuda::reduce_parts({.count = 0, .squares = squares.data()}, {});
  CHECK(squares.to_vector()[0] == 0.0);
}

}  // namespace ashlar
