#include <doctest/doctest.h>

#include <limits>

#include "comm/reduce.hpp"
#include "comm/values.hpp"

namespace ashlar {

TEST_CASE("reduce: pieces give the bits of the whole, squares included") {
  const std::int64_t count = 3 * kNormBlock + 17;
  const test::Flat a = test::filled(DType::bf16, count, 1);
  const test::Flat b = test::filled(DType::bf16, count, 2);
  const auto run = [&](test::Flat& recv, std::int64_t piece) {
    double squares = 0;
    for (std::int64_t first = 0; first < count; first += piece) {
      const std::array<const std::byte*, 2> sources = {a.view().data + 2 * first,
                                                       b.view().data + 2 * first};
      detail::reduce({.sources = sources,
                      .source_type = DType::bf16,
                      .recv = recv.view().data + 4 * first,
                      .recv_type = DType::f32,
                      .count = std::min(piece, count - first),
                      .sum_of_squares = &squares});
    }
    return squares;
  };
  test::Flat whole(DType::f32, count);
  test::Flat pieces(DType::f32, count);
  CHECK(run(whole, count) == run(pieces, kNormBlock));
  CHECK(test::same_bits(whole.view(), pieces.view()));
}

TEST_CASE("reduce: the sum of squares does not depend on where the values lie") {
  const std::int64_t count = 2 * kNormBlock + 5;
  test::Flat memory(DType::f32, count + 16);
  const test::Flat values = test::filled(DType::f32, count, 3);
  const double expected = detail::sum_of_squares(values.view());
  for (std::int64_t shift = 0; shift < 16; ++shift) {
    const TensorView moved = memory.part(shift, count);
    std::memcpy(moved.data, values.view().data, static_cast<std::size_t>(moved.bytes()));
    CHECK(detail::sum_of_squares(moved) == expected);
  }
}

TEST_CASE("reduce: order decides, and overflow and NaN stay visible") {
  const std::array<float, 4> parts = {1e8F, 1.0F, -1e8F, 0.5F};
  std::array<const std::byte*, 4> sources{};
  for (std::size_t i = 0; i < 4; ++i) sources[i] = reinterpret_cast<const std::byte*>(&parts[i]);
  float sum = 0;
  detail::Reduction reduction{.sources = sources, .recv = reinterpret_cast<std::byte*>(&sum)};
  reduction.count = 1;
  detail::reduce(reduction);
  CHECK(sum == 0.5F);  // 1e8 + 1 rounds to 1e8
  std::swap(sources[1], sources[2]);
  detail::reduce(reduction);
  CHECK(sum == 1.5F);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  sources[3] = reinterpret_cast<const std::byte*>(&nan);
  bf16 narrow(0.0F);
  reduction.recv = reinterpret_cast<std::byte*>(&narrow);
  reduction.recv_type = DType::bf16;
  detail::reduce(reduction);
  CHECK(std::isnan(static_cast<float>(narrow)));
  reduction.recv_type = DType::i32;
  CHECK_THROWS_AS(detail::reduce(reduction), InvalidArgument);
}

}  // namespace ashlar
