// The run as a picture: loss over steps, and what memory was for over steps. One SVG file without
// outside references, for light and dark backgrounds.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "train_gpt/metrics.hpp"

namespace train_gpt {

/// Categories, then fragmentation and padding.
inline constexpr int kMemoryBands = ashlar::kCategories + 2;

/// What the picture shows, collected step by step.
class Curves {
 public:
  struct Point {
    double step;
    double value;
  };
  /// Bytes at the step's peak, by band.
  struct Memory {
    double step;
    std::array<double, kMemoryBands> bytes;
  };

  /// Steps whose loss is not finite are left out.
  void add(const StepMetrics& metrics);
  const std::vector<Point>& train() const { return train_; }
  const std::vector<Point>& validation() const { return validation_; }
  const std::vector<Memory>& memory() const { return memory_; }

 private:
  std::vector<Point> train_;
  std::vector<Point> validation_;
  std::vector<Memory> memory_;
};

/// "parameter", ..., "fragmentation", "padding".
std::string band_name(int band);

/// @param title above the picture, escaped here.
std::string to_svg(const Curves& curves, const std::string& title);

/// @throws ashlar::InvalidArgument naming the path when it cannot be written.
void write_plot(const std::filesystem::path& path, const std::string& svg);

}  // namespace train_gpt
