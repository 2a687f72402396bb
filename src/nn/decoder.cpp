#include "nn/decoder.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "ashlar/error.hpp"
#include "ashlar/ops.hpp"

namespace ashlar {

Decoder::Decoder(Tracer& tracer, const ModelTrace& how, const std::string& name,
                 std::int64_t positions)
    : t_(tracer), how_(how) {
  if (how.sequence < 1 || how.sequence > positions) {
    throw InvalidArgument(
        fmt::format("model '{}' has {} positions; a sequence of {} does not fit (--seq)", name,
                    positions, how.sequence));
  }
}

Value Decoder::tokens() { return t_.input("tokens", DType::i32, {how_.batch, how_.sequence}); }

Value Decoder::loss() {
  const Value inputs = tokens();
  const Value targets = t_.input("targets", DType::i32, {how_.batch, how_.sequence});
  const Value x = hidden(inputs);
  const auto unit = t_.unit("head");
  return linear_cross_entropy(x, head_weight(), targets);
}

void Decoder::logits() {
  const Value x = hidden(tokens());
  const auto unit = t_.unit("head");
  t_.output("logits", matmul(x, head_weight(), {.transpose_b = true, .dtype = DType::f32}));
}

void Decoder::next_token() {
  const Value x = hidden(tokens());
  const auto unit = t_.unit("head");
  const Value last =
      reshape(slice(x, 1, how_.sequence - 1, how_.sequence), {how_.batch, x.shape()[2]});
  t_.output("logits", matmul(last, head_weight(), {.transpose_b = true, .dtype = DType::f32}));
}

Value Decoder::weight(const std::string& name, const Shape& shape, double deviation) {
  return declare(name, shape, {Initializer::Kind::normal, deviation});
}

Value Decoder::vector(const std::string& name, std::int64_t size, double value) {
  return declare(name, {size}, {Initializer::Kind::constant, value});
}

double Decoder::residual_deviation(std::int64_t layers) {
  return 0.02 / std::sqrt(2.0 * static_cast<double>(layers));
}

Value Decoder::declare(const std::string& name, const Shape& shape, Initializer initializer) {
  const bool frozen =
      std::any_of(how_.frozen.begin(), how_.frozen.end(),
                  [&](const std::string& pattern) { return matches_pattern(name, pattern); });
  return t_.parameter({name, shape, how_.dtype, 0, !frozen, shape.rank() >= 2, initializer});
}

bool matches_pattern(std::string_view name, std::string_view pattern) {
  const std::size_t star = pattern.find('*');
  if (star == std::string_view::npos) return name.find(pattern) != std::string_view::npos;
  // Whole-name match, one run of characters per star, by backtracking to the last star.
  std::size_t n = 0, p = 0, last_star = std::string_view::npos, resume = 0;
  while (n < name.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      last_star = p++;
      resume = n;
    } else if (p < pattern.size() && pattern[p] == name[n]) {
      ++p;
      ++n;
    } else if (last_star != std::string_view::npos) {
      p = last_star + 1;
      n = ++resume;
    } else {
      return false;
    }
  }
  return pattern.find_first_not_of('*', p) == std::string_view::npos;
}

}  // namespace ashlar
