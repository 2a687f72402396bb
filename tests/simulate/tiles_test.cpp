// What a product fills of a device, by hand and by its laws.
#include "simulate/tiles.hpp"

#include <doctest/doctest.h>

#include <random>

#include "ops/product/machine.hpp"
#include "simulate/simulation.hpp"
#include "train/tiny_gpt.hpp"

namespace ashlar::simulate {

TEST_CASE("tiles: by hand, on the 108 multiprocessors of an A100") {
  CHECK(filled(1792, 1792, 108) == doctest::Approx(98.0 / 108));  // 14 x 14 tiles, two waves
  CHECK(filled(128, 128, 108) == doctest::Approx(1.0 / 108));
  CHECK(filled(128 * 9, 128 * 12, 108) == 1);
  CHECK(filled(54 * 128, 16 * 128, 108) == 1);  // eight waves; one row more begins a ninth
  CHECK(filled(54 * 128 + 1, 16 * 128, 108) ==
        doctest::Approx((54.0 * 128 + 1) * 16 / (9 * 108 * 128)));
  CHECK(filled(7, 9, 0) == 1);
}

TEST_CASE("tiles: no more than all, the same for the transpose; time never falls with size") {
  std::mt19937 random(61);
  for (int trial = 0; trial < 2000; ++trial) {
    const auto rows = static_cast<double>(1 + random() % 20000);
    const auto columns = static_cast<double>(1 + random() % 20000);
    const int processors = 1 + static_cast<int>(random() % 200);
    const double part = filled(rows, columns, processors);
    CHECK(part > 0);
    CHECK(part <= 1);
    CHECK(filled(columns, rows, processors) == part);
    const auto time = [&](double more) {
      return (rows + more) * columns / filled(rows + more, columns, processors);
    };
    CHECK(time(static_cast<double>(random() % 300)) >= time(0) * (1 - 1e-12));
    if (rows > 4000 && columns > 4000) CHECK(part > 0.5);
  }
}

TEST_CASE("tiles: a step's products take longer by what their tiles leave empty") {
  const auto product_seconds = [](std::int64_t batch, int processors) {
    const ModelTrace how{batch, kTinySequence, DType::f32, 0, {}};
    const CompiledStep step =
        compile_step(tiny_gpt_loss(tiny_gpt(), how), TrainConfig{}, 2, host_backend(1));
    Cluster c = cluster("dgx-a100");
    c.device.launch_seconds = 0;
    c.device.memory_rate = 1e30;
    c.device.multiprocessors = processors;
    return price(step.programs[0], 1, 2, c).compute.product;
  };
  const double whole = product_seconds(1, 0);
  CHECK(product_seconds(1, 1) > whole);
  // All products of the tiny model lie within a tile: each keeps one of them busy, of n.
  CHECK(product_seconds(1, 10) == doctest::Approx(10 * product_seconds(1, 1)));
  CHECK(product_seconds(4096, 1) < 1.02 * 4096 * product_seconds(1, 1));
}

}  // namespace ashlar::simulate
