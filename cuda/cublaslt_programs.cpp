// Which products the programs of a step hold.
#include <set>

#include "cuda/planned_calls.hpp"
#include "cuda/products.hpp"

namespace ashlar::cuda {
namespace {

std::vector<ProductCall> calls_of(std::string_view op, const KernelArguments& arguments) {
  if (op == "matmul") return {matmul_call(arguments)};
  if (op == "linear" || op == "linear_gelu") return {linear_call(arguments)};
  if (op == "linear_weight_gradient") return {weight_gradient_call(arguments)};
  if (op == "linear_gelu_backward") return {gelu_backward_call(arguments)};
  if (op.starts_with("linear_cross_entropy")) return head_calls(op, arguments);
  return {};
}

}  // namespace

std::vector<Product> products_of(std::span<const Program> programs) {
  std::set<Product> products;
  for_each_planned_call(
      programs, {}, [&](const Node& node, const Backend&, const KernelArguments& arguments) {
        for (const auto& [product, operands] : calls_of(node.op->name, arguments)) {
          const Gemm& g = product.gemm;
          if (g.m * g.n * g.k * product.batch > 0) products.insert(multiplied(product, operands));
        }
      });
  return {products.begin(), products.end()};
}

}  // namespace ashlar::cuda
