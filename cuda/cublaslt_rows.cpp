// matmul, linear and linear_gelu, and which kernel serves which row.
#include <algorithm>
#include <array>

#include "cuda/kernel_table.hpp"
#include "cuda/products.hpp"
#include "ops/product/rows.hpp"

namespace ashlar::cuda {
namespace {

constexpr std::array kTable = std::to_array<Kernel>({
    {"linear", linear, product_workspace},
    {"linear_cross_entropy", linear_cross_entropy, head_workspace},
    {"linear_cross_entropy_gradient", linear_cross_entropy_gradient, head_workspace},
    {"linear_cross_entropy_with_gradient", linear_cross_entropy_with_gradient, head_workspace},
    {"linear_gelu", linear_gelu, product_workspace},
    {"matmul", matmul, product_workspace},
});

static_assert(std::ranges::is_sorted(kTable, {}, &Kernel::op));

bool is_aligned(const std::byte* pointer) {
  return reinterpret_cast<std::uintptr_t>(pointer) % kOperandAlignment == 0;
}

/// C = the bias in every row, or zeros; gaps between rows of C are written too where there is none.
void fill(const RunContext& context, const Product& product, const std::byte* bias, std::byte* c) {
  const Gemm& g = product.gemm;
  const std::int64_t bytes = product.batch * g.m * g.ldc * size_of(g.result);
  if (!g.bias) return fill_zeros(context.stream, c, bytes);
  const Shape shape{g.m, g.n};
  const TensorView from(const_cast<std::byte*>(bias), g.dtype, shape, Shape{0, 1});
  const TensorView to(c, g.result, shape);
  copy({.context = context, .attributes = {}, .inputs = {&from, 1}, .outputs = {&to, 1}});
}

std::array<TensorType, 3> types_of(std::span<const TensorView> inputs) {
  std::array<TensorType, 3> types;
  for (std::size_t i = 0; i < inputs.size(); ++i) types[i] = {inputs[i].dtype, inputs[i].shape};
  return types;
}

void run(const KernelArguments& a, const ProductCall& call) {
  run_product(a.context, call.product, call.operands, a.workspace);
}

}  // namespace

std::span<const Kernel> kernels_of_products() { return kTable; }

const Kernel* find_product(std::string_view op) { return find_in(kTable, op); }

std::int64_t product_workspace(const OpShapes&) { return kProductWorkspace; }

Product multiplied(Product product, const ProductOperands& operands) {
  Gemm& g = product.gemm;
  g = with_leading_dimensions(g);
  product.aligned = is_aligned(operands.a) && is_aligned(operands.b) && is_aligned(operands.c);
  if (g.bias && !is_aligned(operands.bias)) {
    g.accumulate = true;
    g.bias = false;
  }
  return product;
}

void run_product(const RunContext& context, Product product, const ProductOperands& operands,
                 std::byte* workspace) {
  const Product asked = multiplied(product, operands);
  Gemm& g = product.gemm;
  g = with_leading_dimensions(g);
  if (g.m == 0 || g.n == 0 || product.batch == 0) return;
  const bool empty = g.k == 0;
  if (empty ? !g.accumulate : g.bias && !asked.gemm.bias)
    fill(context, product, operands.bias, operands.c);
  if (empty) return;
  const ProductPlace place = product_place(context.stream);
  place.library.multiply(asked, operands, workspace, place.stream);
}

ProductCall matmul_call(const KernelArguments& a) {
  const MatmulBatch batch = matmul_batch(types_of(a.inputs), a.attributes);
  const Gemm& g = batch.gemm;
  return {{.gemm = g,
           .batch = batch.count,
           .stride_a = g.m * g.k,
           .stride_b = batch.shared_b ? 0 : g.k * g.n,
           .stride_c = g.m * g.n},
          {a.inputs[0].data, a.inputs[1].data, nullptr, a.outputs[0].data}};
}

ProductCall linear_call(const KernelArguments& a) {
  return {{.gemm = linear_gemm(types_of(a.inputs))},
          {a.inputs[0].data, a.inputs[1].data, a.inputs[2].data, a.outputs.back().data}};
}

void matmul(const KernelArguments& a) { run(a, matmul_call(a)); }

void linear(const KernelArguments& a) { run(a, linear_call(a)); }

void linear_gelu(const KernelArguments& a) {
  run(a, linear_call(a));
  gelu({.context = a.context,
        .attributes = a.attributes,
        .inputs = a.outputs.subspan(1),
        .outputs = a.outputs.first(1)});
}

}  // namespace ashlar::cuda
