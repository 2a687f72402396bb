// Correct kernels pass in every order and give the right results.
#include <doctest/doctest.h>

#include <cmath>
#include <numeric>

#include "emulated/kernels.hpp"
#include "emulator/buffer.hpp"
#include "emulator/run_in_all_orders.hpp"

namespace emulated {
using ashlar::StreamRef;
using ashlar::cuda::launch;
using emulator::Buffer;
using emulator::run_in_all_orders;

TEST_CASE("emulator: a block reduces with shuffles and shared memory") {
  constexpr int kRows = 5;
  constexpr int kColumns = 333;
  std::vector<float> rows(kRows * kColumns);
  for (std::size_t i = 0; i < rows.size(); ++i) rows[i] = std::sin(static_cast<float>(i));
  for (const unsigned threads : {32U, 96U, 256U, 1024U}) {
    CAPTURE(threads);
    const std::vector<float> sums = run_in_all_orders([&] {
      const Buffer<float> in(rows);
      const Buffer<float> out(kRows);
      launch(kRows, threads, 0, StreamRef{}, sum_rows, out.data(), in.data(), kColumns);
      return out.to_vector();
    });
    for (int r = 0; r < kRows; ++r) {
      const auto* row = rows.data() + r * kColumns;
      CHECK(sums[static_cast<std::size_t>(r)] ==
            doctest::Approx(std::accumulate(row, row + kColumns, 0.0)).epsilon(1e-5));
    }
  }
}

}  // namespace emulated
