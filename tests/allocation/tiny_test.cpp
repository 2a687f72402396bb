// Training in 256 KiB: once the step is planned, no thread allocates, for training or evaluation.
#include "tiny_256kb/tiny.hpp"

#include <doctest/doctest.h>

#include "allocation/count.hpp"
#include "vision/synthetic.hpp"

namespace {

alignas(ashlar::kAlignment) std::byte arena[tiny::kArenaBytes];

}  // namespace

TEST_CASE("allocation: the small network allocates nothing once it is planned") {
  const TemporaryFolder folder;
  vision::write_split(folder, "train", 100);
  vision::write_split(folder, "t10k", 50);
  const vision::FashionMnist data(folder.path, folder.path);
  counted::maps = counted::everywhere = true;
  tiny::Tiny tiny(arena, data, tiny::recipe());
  const std::int64_t by_planning = counted::total();
  for (int step = 0; step < 10; ++step) tiny.training().step();
  const std::int64_t by_steps = counted::total() - by_planning;
  tiny.training().accuracy();
  counted::everywhere = false;
  CHECK(by_planning > 0);
  CHECK(by_steps == 0);
  CHECK(counted::total() == by_planning);
}
