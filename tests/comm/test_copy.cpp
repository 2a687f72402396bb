#include <doctest/doctest.h>

#include "comm/copy.hpp"
#include "comm/values.hpp"

namespace ashlar {

TEST_CASE("copy: large copies keep every byte, whatever the alignment") {
  const std::int64_t room = (std::int64_t{17} << 20) + 300;
  test::Flat source(DType::u8, room);
  auto* bytes = source.view().as<std::uint8_t>();
  for (std::int64_t i = 0; i < room; ++i) bytes[i] = static_cast<std::uint8_t>(i * 31 >> 3);
  for (const std::int64_t shift : {0, 1, 63, 64}) {
    CAPTURE(shift);
    const test::Flat target(DType::u8, room);
    const std::int64_t count = room - 2 * shift - 5;
    detail::copy_bytes(target.view().data + shift, source.view().data + 2 * shift, count);
    CHECK(test::same_bits(target.part(shift, count), source.part(2 * shift, count)));
    const std::uint8_t after = target.view().as<std::uint8_t>()[shift + count];
    CHECK(after == 0x5a);
  }
}

}  // namespace ashlar
