// Fashion-MNIST (Xiao et al., arXiv:1708.07747): 60,000 and 10,000 grey images of 28 x 28 pixels in
// ten classes. Read from mapped files; nothing here allocates once they are open.
#pragma once

#include <cstdint>
#include <filesystem>

#include "ashlar/tensor_view.hpp"
#include "fashion_mnist/idx.hpp"

namespace vision {

inline constexpr std::int64_t kSide = 28;
inline constexpr std::int64_t kClasses = 10;
inline constexpr const char* kDebianFolder = "/usr/share/datasets/fashion-mnist";

/// Images and their labels.
class Split {
 public:
  /// @param prefix "train" or "t10k". @throws InvalidArgument naming the file at fault.
  Split(const std::filesystem::path& folder, const char* prefix,
        const std::filesystem::path& cache);

  std::int64_t size() const { return labels_.extent(0); }
  std::int32_t label(std::int64_t i) const { return labels_.values()[static_cast<std::size_t>(i)]; }
  /// Image i, normalised to the training images' mean 0 and deviation 1.
  /// @param values f32, kSide x kSide
  void image(std::int64_t i, float* values) const;

 private:
  IdxFile images_;
  IdxFile labels_;
};

struct FashionMnist {
  explicit FashionMnist(const std::filesystem::path& folder,
                        const std::filesystem::path& cache = default_cache())
      : train(folder, "train", cache), test(folder, "t10k", cache) {}
  Split train, test;
};

/// The i-th sample of training on and on: each run of `size` of them is all samples, in an order
/// of its own. A pure function; nothing is stored.
std::int64_t shuffled(std::int64_t i, std::int64_t size, std::uint64_t seed);

/// How many of the first `count` rows of logits f32 (rows, kClasses) are largest at the label of
/// samples first, first + 1, ...
std::int64_t count_correct(const ashlar::TensorView& logits, const Split& split, std::int64_t first,
                           std::int64_t count);

}  // namespace vision
