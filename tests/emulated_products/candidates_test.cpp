// How perf_gpu_products chooses, and that the products it times are those of GPT-2's step.
#include "gpu/candidates.hpp"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <array>
#include <map>
#include <set>
#include <string>
#include <utility>

#include "ashlar/nn/language_model.hpp"
#include "emulated_products/fixture.hpp"
#include "ops/cuda_backend.hpp"
#include "sharding/compile_step.hpp"

namespace ashlar::test {
namespace {

using cuda::CublasLt;
using cuda::CublasLtLibrary;
using cuda::Product;

const Product kProduct{.gemm = with_leading_dimensions({.m = 2, .n = 3, .k = 4})};

/// Runs the product once. @return the way of adding that the library has chosen
int way_of(const CublasLt& library) {
  alignas(16) std::array<float, 16> a{}, b{}, c{};
  std::vector<std::byte> workspace(static_cast<std::size_t>(cuda::kProductWorkspace));
  const auto bytes = [](auto& values) { return reinterpret_cast<std::byte*>(values.data()); };
  library.multiply(kProduct, {bytes(a), bytes(b), nullptr, bytes(c)}, workspace.data(), nullptr);
  return fake_cublaslt()->last_way;
}

/// By way of adding; others fail.
std::vector<perf::Candidate> timed(const std::map<int, double>& seconds, int count = 8) {
  return perf::time_candidates(CublasLtLibrary::installed(), 90, kProduct, count,
                               [&](const CublasLt& library) {
                                 const auto found = seconds.find(way_of(library));
                                 if (found == seconds.end()) throw CudaError("launch failed");
                                 return found->second;
                               });
}
int best_way(const std::map<int, double>& seconds) {
  const auto all = timed(seconds);
  cuda::Algorithms committed({&perf::best_of(all).entry, 1});
  return way_of(CublasLt(CublasLtLibrary::installed(), 90, committed));
}

}  // namespace

TEST_CASE("candidates: each of the library's heuristics is timed, and the quickest is taken") {
  Faults faults;
  faults->candidates = 4;
  CHECK(timed({{0, 4}, {1, 3}, {2, 1}, {3, 2}}).size() == 4);
  CHECK(timed({{0, 4}, {1, 3}, {2, 1}, {3, 2}}, 3).size() == 3);
  CHECK(best_way({{0, 4}, {1, 3}, {2, 1}, {3, 2}}) == 2);
  CHECK(best_way({{0, 1}, {1, 3}, {2, 1}, {3, 2}}) == 0);
  CHECK(best_way({{0, 100}, {1, 99}, {2, 110}, {3, 101}}) == 0);
  CHECK(best_way({{0, 100}, {1, 99}, {2, 97}, {3, 101}}) == 2);
}

TEST_CASE("candidates: one that fails is left out") {
  Faults faults;
  faults->candidates = 3;
  CHECK(timed({{0, 4}, {2, 5}}).size() == 2);
  CHECK(best_way({{1, 4}, {2, 3}}) == 2);
  CHECK(cuda_error_of([] { timed({}); }) == "no algorithm works for (2, 4) x (4, 3), f32 to f32");
}

TEST_CASE("candidates: of an epilogue that the library does not have there are none") {
  Faults faults;
  Product product = kProduct;
  product.epilogue = cuda::Epilogue::bias_gradient;
  const auto count = [&] {
    return perf::time_candidates(CublasLtLibrary::installed(), 90, product, 8,
                                 [](const CublasLt&) { return 1.0; })
        .size();
  };
  CHECK(count() == 1);
  faults->gradient_result = CUBLAS_STATUS_NOT_SUPPORTED;
  CHECK(count() == 0);
}

TEST_CASE("candidates: the products of GPT-2's step, by its program") {
  const LanguageModel model = language_model("gpt2");
  TrainConfig config;
  config.zero.stage = 0;
  config.precision = {DType::bf16, DType::bf16};
  const ModelTrace how{16, 1024, DType::bf16, 0, {}};
  const auto step =
      compile_step([&](Tracer& t) { return model.loss(t, how); }, config, 1, cuda_backend(1, 90));
  std::set<std::string> products;
  for (const Product& product : cuda::products_of(step.programs))
    products.insert(describe(product));
  std::set<std::string> expected = {"(2048, 768) x (50304, 768)^T, bf16 to bf16",
                                    "(2048, 50304) x (50304, 768), bf16 to bf16",
                                    "(2048, 50304)^T x (2048, 768), bf16 to f32",
                                    "(2048, 50304)^T x (2048, 768), bf16 to f32, added"};
  for (const auto& [in, out] : {std::pair{768, 2304}, {768, 768}, {768, 3072}, {3072, 768}}) {
    expected.insert(fmt::format("(16384, {0}) x ({0}, {1}), bf16 to bf16, with bias", in, out));
    const bool up = out == 3072, down = in == 3072;
    expected.insert(fmt::format("(16384, {1}) x ({0}, {1})^T, bf16 to bf16{2}", in, out,
                                down ? ", with gelu_backward" : ""));
    expected.insert(fmt::format("(16384, {0})^T x (16384, {1}), bf16 to bf16{2}", in, out,
                                up ? "" : ", with bias_gradient"));
  }
  CHECK(products == expected);
}

}  // namespace ashlar::test
