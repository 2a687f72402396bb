// The rows of the language-model head against the CPU's, and what kernels do with ids that are not
// there.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>

#include "emulated/device_call.hpp"
#include "ops/harness.hpp"
#include "ops/product/softmax_rows.hpp"

namespace ashlar::test {
namespace {

struct Problem {
  std::int64_t rows, columns, stride;
};

/// Logits rounded to T, rows `stride` apart.
template <typename T>
std::vector<T> logits_of(const Problem& p) {
  std::vector<T> logits(static_cast<std::size_t>(p.rows * p.stride), T(100.0F));
  const Doubles values = random_values(p.rows * p.columns, -8, 8, 3);
  for (std::int64_t i = 0; i < p.rows * p.columns; ++i)
    logits[static_cast<std::size_t>(i / p.columns * p.stride + i % p.columns)] =
        static_cast<T>(static_cast<float>(values[static_cast<std::size_t>(i)]));
  return logits;
}

std::vector<std::int32_t> targets_of(const Problem& p) {
  std::vector<std::int32_t> targets;
  for (std::int64_t row = 0; row < p.rows; ++row)
    targets.push_back(row % 4 == 3 ? -1 : static_cast<std::int32_t>(row * 7 % p.columns));
  return targets;
}

/// Losses (rows), the mean loss, and the gradient, in place.
template <typename T>
void run_head(const KernelArguments& a) {
  const TensorView& logits = a.outputs[0];
  const auto* targets = a.inputs[1].as<const std::int32_t>();
  const std::int64_t rows = a.inputs[1].elements();
  auto* scales = reinterpret_cast<double*>(a.workspace);
  const cuda::HeadRows head{logits.data,     dtype_of<T>, rows, a.attributes.integer("columns"),
                            logits.shape[1], targets};
  cuda::target_scale(a.context, targets, rows, a.inputs[2].as<const float>(), scales);
  cuda::target_scale(a.context, targets, rows, nullptr, scales + 1);
  cuda::negative_log_likelihood_gradient(a.context, head, scales, a.outputs[1].as<double>());
  cuda::sum_losses(a.context, a.outputs[1].as<double>(), rows, scales + 1,
                   a.outputs[2].as<float>());
}

template <typename T>
void check_head(const Problem& p) {
  CAPTURE(p.columns);
  auto logits = logits_of<T>(p);
  auto targets = targets_of(p);
  float dloss = 0.5F;
  const DeviceCall call{
      .run = run_head<T>,
      .attributes = {{"columns", p.columns}},
      .inputs = {TensorView(logits.data(), dtype_of<T>, {p.rows, p.stride}),
                 TensorView(targets.data(), DType::i32, {p.rows}),
                 TensorView(&dloss, DType::f32, {})},
      .outputs = {{dtype_of<T>, {p.rows, p.stride}}, {DType::f64, {p.rows}}, {DType::f32, {}}},
      .workspace = 16,
      .shared = {{0, 0}}};
  const std::vector<std::byte> actual = run_on_device(call);

  const auto size = static_cast<std::size_t>(p.rows * p.columns);
  std::vector<float> dense(size), gradient(size);
  std::vector<double> losses(static_cast<std::size_t>(p.rows));
  for (std::size_t i = 0; i < size; ++i)
    dense[i] = logits[i / static_cast<std::size_t>(p.columns) * static_cast<std::size_t>(p.stride) +
                      i % static_cast<std::size_t>(p.columns)];
  std::int64_t counted = 0;
  for (const std::int32_t t : targets) counted += t >= 0;
  negative_log_likelihood_gradient(
      {},
      {reinterpret_cast<std::byte*>(dense.data()), DType::f32, p.rows, p.columns, targets.data()},
      0.5 / static_cast<double>(counted), losses.data(),
      reinterpret_cast<std::byte*>(gradient.data()), DType::f32);
  std::vector<T> expected(logits.size(), T(0.0F));
  double total = 0;
  for (std::size_t i = 0; i < size; ++i)
    expected[i / static_cast<std::size_t>(p.columns) * static_cast<std::size_t>(p.stride) +
             i % static_cast<std::size_t>(p.columns)] = T(gradient[i]);
  for (const double loss : losses) total += loss / static_cast<double>(counted);
  const std::byte* at = actual.data();
  const auto stored = static_cast<std::int64_t>(expected.size());
  CHECK(relative_error(at, reinterpret_cast<const std::byte*>(expected.data()), stored,
                       dtype_of<T>) < (dtype_of<T> == DType::f32 ? 1e-5 : 1e-2));
  at += stored * static_cast<std::int64_t>(sizeof(T));
  CHECK(relative_error(at, reinterpret_cast<const std::byte*>(losses.data()), p.rows, DType::f64) <
        1e-5);
  at += p.rows * 8;
  float mean = 0;
  std::memcpy(&mean, at, sizeof mean);
  CHECK(mean == doctest::Approx(total).epsilon(1e-5));
}

}  // namespace

TEST_CASE("kernels: rows of the head, logits in place, padded vocabulary") {
  for (const Problem& p :
       {Problem{5, 50, 64}, Problem{4, 7, 7}, Problem{9, 1100, 1152}, Problem{2, 16400, 16448}}) {
    check_head<float>(p);
    check_head<bf16>(p);
  }
}

TEST_CASE("kernels: an id that is not in the table shows as NaN") {
  std::vector<std::int32_t> tokens{1, 5, -1, 0};
  std::vector<float> table(5 * 3, 1.0F), logits(4 * 5, 0.5F);
  const DeviceCall look_up{.run = cuda::embedding,
                           .inputs = {TensorView(tokens.data(), DType::i32, {4}),
                                      TensorView(table.data(), DType::f32, {5, 3}), TensorView()},
                           .outputs = {{DType::f32, {4, 3}}}};
  const std::vector<std::byte> bytes = run_on_device(look_up);
  float rows[12];
  std::memcpy(rows, bytes.data(), sizeof rows);
  for (std::size_t i = 0; i < 12; ++i) CHECK(std::isnan(rows[i]) == (i / 3 == 1 || i / 3 == 2));

  const DeviceCall entropy{.run = cuda::cross_entropy,
                           .inputs = {TensorView(logits.data(), DType::f32, {4, 5}),
                                      TensorView(tokens.data(), DType::i32, {4})},
                           .outputs = {{DType::f32, {}}, {DType::f32, {4}}}};
  float loss = 0;
  std::memcpy(&loss, run_on_device(entropy).data(), sizeof loss);
  CHECK(std::isnan(loss));
}

TEST_CASE("kernels: types that are not computed are refused") {
  double x = 1;
  const DeviceCall call{.run = cuda::gelu,
                        .inputs = {TensorView(&x, DType::f64, {1})},
                        .outputs = {{DType::f64, {1}}}};
  CHECK_THROWS_WITH_AS(run_once(call), doctest::Contains("not in f64"), InvalidArgument);
}

}  // namespace ashlar::test
