// Random tokens, for measuring.
#include <fmt/format.h>

#include "ashlar/data.hpp"
#include "ashlar/error.hpp"
#include "base/math/philox.hpp"

namespace ashlar {
namespace {

class SyntheticTokens final : public TokenSource {
 public:
  SyntheticTokens(std::int64_t size, std::int64_t vocabulary, std::uint64_t seed)
      : size_(size), vocabulary_(static_cast<std::uint64_t>(vocabulary)), seed_(seed) {}

  const std::string& name() const override { return name_; }
  std::int64_t size() const override { return size_; }

  void copy(std::int64_t begin, std::span<std::int32_t> tokens) const override {
    const auto count = static_cast<std::int64_t>(tokens.size());
    if (begin < 0 || count > size_ - begin)
      throw InvalidArgument(
          fmt::format("{}: tokens [{}, {}) asked of {}", name_, begin, begin + count, size_));
    std::array<std::uint32_t, 4> words{};
    auto position = static_cast<std::uint64_t>(begin);
    for (std::size_t i = 0; i < tokens.size(); ++i, ++position) {
      if (i == 0 || position % 4 == 0) words = philox(position / 4, kStream, seed_);
      tokens[i] = static_cast<std::int32_t>((words[position % 4] * vocabulary_) >> 32);
    }
  }

 private:
  static constexpr std::uint64_t kStream = 0x746f6b656e73;  // apart from all other uses of the seed

  std::int64_t size_;
  std::uint64_t vocabulary_;
  std::uint64_t seed_;
  std::string name_ = "synthetic tokens";
};

}  // namespace

std::unique_ptr<TokenSource> synthetic_tokens(std::int64_t size, std::int64_t vocabulary,
                                              std::uint64_t seed) {
  if (size < 0 || vocabulary < 1 || vocabulary > INT32_MAX)
    throw InvalidArgument(fmt::format("cannot make {} tokens below {}", size, vocabulary));
  return std::make_unique<SyntheticTokens>(size, vocabulary, seed);
}

}  // namespace ashlar
