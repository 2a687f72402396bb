// What goes wrong in cuBLASLt is said in one line, and how its algorithms are chosen.
#include <doctest/doctest.h>

#include <array>
#include <atomic>
#include <set>
#include <thread>
#include <vector>

#include "emulated_products/fixture.hpp"

namespace ashlar::test {
namespace {

using cuda::AlgorithmEntry;
using cuda::Algorithms;
using cuda::CublasLt;
using cuda::CublasLtLibrary;
using cuda::Product;

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

/// A product of ones on memory of its own.
class Ones {
 public:
  explicit Ones(std::int64_t m, std::int64_t n = 3, std::int64_t k = 4)
      : product_{.gemm = with_leading_dimensions({.m = m, .n = n, .k = k})} {}
  Product& product() { return product_; }
  void multiply(const CublasLt& library) {
    library.multiply(product_, {bytes(a_), bytes(b_), nullptr, bytes(c_)}, workspace_.data(),
                     nullptr);
  }
  float result() const { return c_[0]; }

 private:
  static std::byte* bytes(std::vector<float>& values) {
    return reinterpret_cast<std::byte*>(values.data());
  }
  Product product_;
  std::vector<float> a_ = std::vector<float>(64, 1), b_ = a_, c_ = a_;
  std::vector<std::byte> workspace_ =
      std::vector<std::byte>(static_cast<std::size_t>(cuda::kProductWorkspace));
};

}  // namespace

TEST_CASE("emulated: a cuBLASLt that is not there or lacks a function is named, with the remedy") {
  const std::string missing = cuda_error_of([] { CublasLtLibrary("libno_cublasLt.so.13"); });
  CHECK(contains(missing, "libno_cublasLt.so.13"));
  CHECK(contains(missing, "install cuBLAS 13"));
  CHECK(contains(missing, "LD_LIBRARY_PATH"));
  CHECK(contains(cuda_error_of([] { CublasLtLibrary("libm.so.6"); }),
                 "libm.so.6 has no cublasLtCreate; install cuBLAS 13"));
}

#ifdef ASHLAR_CUBLASLT
TEST_CASE("emulated: the installed cuBLASLt has every function that is called") {
  const CublasLtLibrary real(ASHLAR_CUBLASLT);
  CHECK(real.get_version() / 10000 == CUBLAS_VER_MAJOR);
  CHECK((real.create != CublasLtLibrary::installed().create));
}
#endif

TEST_CASE("emulated: a handle that cannot be made, a call that fails, no algorithm") {
  Faults faults;
  Algorithms algorithms;
  const CublasLtLibrary& fake = CublasLtLibrary::installed();
  const int before = faults->handles;
  faults->create_result = CUBLAS_STATUS_NOT_INITIALIZED;
  const std::string created = cuda_error_of([&] { CublasLt(fake, 90, algorithms); });
  CHECK(contains(created, "cuda/cublaslt.cpp:"));
  CHECK(contains(created, "cublasLtCreate: the fake says so (CUBLAS_STATUS_NOT_INITIALIZED)"));
  faults->create_result = 0;
  {
    const CublasLt library(fake, 90, algorithms);
    CHECK(faults->handles == before + 1);
    Ones ones(2);
    faults->no_algorithm = true;
    CHECK(contains(cuda_error_of([&] { ones.multiply(library); }),
                   "no algorithm for (2, 4) x (4, 3), f32 to f32: the fake says so "
                   "(CUBLAS_STATUS_NOT_SUPPORTED)"));
    CHECK(algorithms.chosen().empty());
    faults->no_algorithm = false;
    faults->matmul_result = CUBLAS_STATUS_EXECUTION_FAILED;
    CHECK(
        contains(cuda_error_of([&] { ones.multiply(library); }),
                 "(2, 4) x (4, 3), f32 to f32: the fake says so (CUBLAS_STATUS_EXECUTION_FAILED)"));
    faults->matmul_result = 0;
    ones.multiply(library);
    CHECK(ones.result() == 4);
    ones.product().gemm.dtype = ones.product().gemm.result = DType::f64;
    CHECK_THROWS_WITH_AS(ones.multiply(library), doctest::Contains("not of f64"), InvalidArgument);
  }
  CHECK(faults->handles == before);
}

TEST_CASE("emulated: a kind of product is chosen for once, whoever asks") {
  Faults faults;
  Algorithms algorithms;
  const CublasLt library(CublasLtLibrary::installed(), 90, algorithms);
  const CublasLt other(CublasLtLibrary::installed(), 90, algorithms);
  Ones first(2), same(2), larger(5);
  const int asked = faults->heuristics;
  first.multiply(library);
  const int chosen = faults->last_algorithm;
  same.multiply(other);
  CHECK(faults->last_algorithm == chosen);
  larger.multiply(library);
  CHECK(faults->last_algorithm != chosen);
  first.multiply(library);
  CHECK(faults->last_algorithm == chosen);
  CHECK(faults->heuristics == asked + 2);
  CHECK(algorithms.chosen().size() == 2);
  const CublasLt newer(CublasLtLibrary::installed(), 100, algorithms);
  first.multiply(newer);
  CHECK(algorithms.chosen().size() == 3);
}

TEST_CASE("emulated: ranks as threads choose once") {
  Faults faults;
  Algorithms algorithms;
  const CublasLt library(CublasLtLibrary::installed(), 90, algorithms);
  const int asked = faults->heuristics, products = faults->products;
  std::vector<std::thread> ranks;
  std::atomic<int> wrong = 0;
  for (int rank = 0; rank < 4; ++rank)
    ranks.emplace_back([&] {
      Ones ones(2);
      for (int run = 0; run < 50; ++run) {
        ones.multiply(library);
        if (ones.result() != 4) ++wrong;
      }
    });
  for (std::thread& rank : ranks) rank.join();
  CHECK(wrong == 0);
  CHECK(faults->heuristics == asked + 1);
  CHECK(faults->products == products + 200);
}

TEST_CASE("emulated: the hash tells choices apart, not the order they were made in") {
  const auto chosen = [](std::initializer_list<std::pair<std::int64_t, std::uint64_t>> choices) {
    Algorithms algorithms;
    for (const auto& [m, word] : choices)
      algorithms.choose(
          {{.gemm = {.m = m}}, 90, 130100}, nullptr, [](const auto&) {},
          [word = word] { return cuda::AlgorithmWords{word}; });
    return cuda::hash_of(algorithms.chosen());
  };
  CHECK(chosen({{1, 7}, {2, 8}}) == chosen({{2, 8}, {1, 7}}));
  CHECK(chosen({{1, 7}, {2, 8}}) != chosen({{1, 8}, {2, 7}}));
  CHECK(chosen({{1, 7}, {2, 8}}) != chosen({{1, 7}}));
  CHECK(chosen({{1, 7}}) != chosen({{3, 7}}));
}

TEST_CASE("emulated: an entry of the committed table is taken, if the library takes it") {
  Faults faults;
  Algorithms learned;
  Ones ones(2), larger(5);
  ones.multiply(CublasLt(CublasLtLibrary::installed(), 90, learned));
  const int chosen = faults->last_algorithm, asked = faults->heuristics;
  std::vector<AlgorithmEntry> table = learned.chosen();
  CHECK(cuda::table_line(table[0]).starts_with(
      "{{{{2, 3, 4, false, false, 4, 3, 3, DType::f32, DType::f32, false, false}, 1, 0, 0, 0, "
      "true, Epilogue::none}, 90, 1"));
  {
    Algorithms committed(table);
    ones.multiply(CublasLt(CublasLtLibrary::installed(), 90, committed));
    CHECK(faults->last_algorithm == chosen);
    CHECK(faults->heuristics == asked);
    CHECK(cuda::hash_of(committed.chosen()) == cuda::hash_of(learned.chosen()));
  }
  table[0].key.product = larger.product();
  Algorithms wrong(table);
  CHECK(contains(
      cuda_error_of([&] { larger.multiply(CublasLt(CublasLtLibrary::installed(), 90, wrong)); }),
      "the committed table's algorithm for (5, 4) x (4, 3), f32 to f32: "));
  CHECK(faults->heuristics == asked);
}

TEST_CASE("emulated: products that differ in their epilogue alone are chosen for apart") {
  const auto words = [](cuda::Epilogue epilogue, Algorithms& algorithms) {
    const auto asked = static_cast<std::uint64_t>(epilogue) + 1;
    return algorithms.choose(
        {{.gemm = {.m = 1}, .epilogue = epilogue}, 90, 130100}, nullptr, [](const auto&) {},
        [asked] { return cuda::AlgorithmWords{asked}; })[0];
  };
  Algorithms algorithms;
  std::set<std::string> lines, names;
  for (const auto epilogue :
       {cuda::Epilogue::none, cuda::Epilogue::bias_gradient, cuda::Epilogue::gelu_backward})
    CHECK(words(epilogue, algorithms) == static_cast<std::uint64_t>(epilogue) + 1);
  for (AlgorithmEntry entry : algorithms.chosen()) {
    names.insert(describe(entry.key.product));
    entry.words = {};
    lines.insert(cuda::table_line(entry));
  }
  CHECK(lines.size() == 3);
  CHECK(names.size() == 3);
}

TEST_CASE("emulated: a product's workspace is planned without a device, and is enough") {
  for (const cuda::Kernel& kernel : cuda::kernels_of_products())
    CHECK((kernel.workspace != nullptr));
  const Attributes none;
  const std::array<TensorType, 3> types = {TensorType{DType::bf16, {8, 4}},
                                           TensorType{DType::bf16, {4, 4}}, TensorType{}};
  CHECK(cuda::find_product("linear")->workspace({types, {}, none}) == cuda::kProductWorkspace);
  CHECK(cuda::find_product("gelu") == nullptr);
  Faults faults;
  Algorithms algorithms;
  const CublasLt library(CublasLtLibrary::installed(), 90, algorithms);
  faults->workspace = cuda::kLibraryBytes;
  Ones(2).multiply(library);
  faults->workspace = cuda::kLibraryBytes + 1;
  CHECK(contains(cuda_error_of([&] { Ones(3).multiply(library); }), "no algorithm for"));
}

}  // namespace ashlar::test
