// matmul, linear, linear_gelu and the gradients of the last two, and which kernel serves which row.
#include <algorithm>
#include <array>

#include "cuda/kernel_table.hpp"
#include "cuda/products.hpp"
#include "ops/product/gelu_columns.hpp"
#include "ops/product/rows.hpp"

namespace ashlar::cuda {
namespace {

constexpr std::array kTable = std::to_array<Kernel>({
    {"linear", linear, product_workspace},
    {"linear_cross_entropy", linear_cross_entropy, head_workspace},
    {"linear_cross_entropy_gradient", linear_cross_entropy_gradient, head_workspace},
    {"linear_cross_entropy_with_gradient", linear_cross_entropy_with_gradient, head_workspace},
    {"linear_gelu", linear_gelu, product_workspace},
    {"linear_gelu_backward", linear_gelu_backward, gelu_backward_workspace},
    {"linear_weight_gradient", linear_weight_gradient, weight_gradient_workspace},
    {"matmul", matmul, product_workspace},
});

static_assert(std::ranges::is_sorted(kTable, {}, &Kernel::op));

/// Rows of h begin at multiples of so many elements where the library reads them.
constexpr std::int64_t kRowUnit = 8;

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

bool has_type(const Attributes& attributes, std::string_view name, DType dtype) {
  return attributes.integer(name) == static_cast<std::int64_t>(dtype);
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
  if (!product.aligned || !is_aligned(operands.bias_gradient) || !is_aligned(operands.h))
    product.epilogue = Epilogue::none;
  return product;
}

Product without_epilogue(Product product) {
  product.epilogue = Epilogue::none;
  return product;
}

std::int64_t weight_gradient_workspace(const OpShapes& shapes) {
  return std::max(kProductWorkspace, sum_workspace({shapes.inputs.subspan(1),
                                                    shapes.outputs.subspan(1), shapes.attributes}));
}

std::int64_t gelu_backward_workspace(const OpShapes& shapes) {
  const TensorType& h = shapes.inputs[2];
  return std::max(kProductWorkspace, gelu_columns_workspace(h.shape[0], h.shape[1], h.dtype));
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

bool run_with_epilogue(const RunContext& context, const Product& product,
                       const ProductOperands& operands, std::byte* workspace) {
  const Product asked = multiplied(product, operands);
  const Gemm& g = asked.gemm;
  if (asked.epilogue == Epilogue::none || g.m == 0 || g.n == 0 || g.k == 0) return false;
  const ProductPlace place = product_place(context.stream);
  return place.library.multiply(asked, operands, workspace, place.stream);
}

Product weight_gradient_product(std::span<const TensorType> inputs, const Attributes& attributes) {
  Product product{.gemm = with_leading_dimensions(weight_gradient_gemm(inputs, attributes))};
  if (has_type(attributes, "bias_dtype", product.gemm.result))
    product.epilogue = Epilogue::bias_gradient;
  return product;
}

Product gelu_backward_product(std::span<const TensorType> inputs, const Attributes& attributes) {
  Product product{.gemm = with_leading_dimensions(gelu_backward_gemm(inputs))};
  const Gemm& g = product.gemm;
  const bool types = g.dtype == DType::bf16 && has_type(attributes, "dtype", g.result);
  if (types && g.n % kRowUnit == 0 && g.k > 1) product.epilogue = Epilogue::gelu_backward;
  return product;
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

ProductCall weight_gradient_call(const KernelArguments& a) {
  return {weight_gradient_product(types_of(a.inputs), a.attributes),
          {.a = a.inputs[0].data,
           .b = a.inputs[1].data,
           .c = a.outputs[0].data,
           .bias_gradient = a.outputs[1].data}};
}

ProductCall gelu_backward_call(const KernelArguments& a) {
  return {gelu_backward_product(types_of(a.inputs), a.attributes),
          {.a = a.inputs[0].data,
           .b = a.inputs[1].data,
           .c = a.outputs[0].data,
           .bias_gradient = a.outputs[1].data,
           .h = a.inputs[2].data}};
}

namespace {

/// @return false where it ran without the epilogue, whose part is to follow.
bool runs_with_epilogue(const KernelArguments& a, const ProductCall& call) {
  if (run_with_epilogue(a.context, call.product, call.operands, a.workspace)) return true;
  run(a, {without_epilogue(call.product), call.operands});
  return false;
}

}  // namespace

void matmul(const KernelArguments& a) { run(a, matmul_call(a)); }

void linear(const KernelArguments& a) { run(a, linear_call(a)); }

void linear_gelu(const KernelArguments& a) {
  run(a, linear_call(a));
  gelu({.context = a.context,
        .attributes = a.attributes,
        .inputs = a.outputs.subspan(1),
        .outputs = a.outputs.first(1)});
}

void linear_weight_gradient(const KernelArguments& a) {
  if (runs_with_epilogue(a, weight_gradient_call(a))) return;
  sum({.context = a.context,
       .attributes = a.attributes,
       .inputs = a.inputs.subspan(1),
       .outputs = a.outputs.subspan(1),
       .workspace = a.workspace});
}

void linear_gelu_backward(const KernelArguments& a) {
  if (runs_with_epilogue(a, gelu_backward_call(a))) return;
  const std::array columns = {a.inputs[2], a.outputs[0]};
  gelu_columns_backward({.context = a.context,
                         .attributes = a.attributes,
                         .inputs = columns,
                         .outputs = a.outputs,
                         .workspace = a.workspace});
}

}  // namespace ashlar::cuda
