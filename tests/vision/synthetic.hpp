// A small data set in the format of Fashion-MNIST: ten bright patches in noise.
#pragma once

#include <random>
#include <string>

#include "support/temporary_folder.hpp"

namespace vision {

inline std::string big_endian(std::uint32_t value) {
  std::string bytes;
  for (int shift = 24; shift >= 0; shift -= 8) bytes += static_cast<char>(value >> shift & 255);
  return bytes;
}

inline void write_split(const TemporaryFolder& folder, const std::string& prefix,
                        std::uint32_t count) {
  std::mt19937 random(count);
  std::string images =
      std::string("\0\0\x08\x03", 4) + big_endian(count) + big_endian(28) + big_endian(28);
  std::string labels = std::string("\0\0\x08\x01", 4) + big_endian(count);
  for (std::uint32_t i = 0; i < count; ++i) {
    const auto label = static_cast<std::uint32_t>(random() % 10);
    labels += static_cast<char>(label);
    for (std::uint32_t pixel = 0; pixel < 784; ++pixel) {
      const bool patch = pixel / 28 / 6 == label / 4 && pixel % 28 / 7 == label % 4;
      images += static_cast<char>(random() % 100 + (patch ? 150 : 0));
    }
  }
  folder.write(prefix + "-images-idx3-ubyte", images);
  folder.write(prefix + "-labels-idx1-ubyte", labels);
}

}  // namespace vision
