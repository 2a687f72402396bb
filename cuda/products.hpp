// The rows of matrix products on CUDA: by cuBLASLt, with our own kernels for what is around them.
#pragma once

#include "cuda/cublaslt.hpp"
#include "cuda/kernels.hpp"
#include "graph/program.hpp"

namespace ashlar::cuda {

/// All of them, by name in ascending order; each plans its workspace without a device.
std::span<const Kernel> kernels_of_products();
/// Null where an op is no product.
const Kernel* find_product(std::string_view op);

// cuBLASLt's gelu is not ours: it reads sums before they are rounded, and recomputation needs
// gelu(h) in the same bits. So linear_gelu is a product with its bias, then our own gelu.
void matmul(const KernelArguments& arguments);
void linear(const KernelArguments& arguments);
void linear_gelu(const KernelArguments& arguments);
std::int64_t product_workspace(const OpShapes& shapes);

// The gradients of linear layers: the library sums a bias gradient beside its product where it can,
// else our own kernels do behind it.
void linear_weight_gradient(const KernelArguments& arguments);
void linear_gelu_backward(const KernelArguments& arguments);
std::int64_t weight_gradient_workspace(const OpShapes& shapes);
std::int64_t gelu_backward_workspace(const OpShapes& shapes);
/// What these rows ask the library for: aligned operands, Epilogue::none where it has rules against
/// the epilogue. Where it has no algorithm with one they multiply without it.
Product weight_gradient_product(std::span<const TensorType> inputs, const Attributes& attributes);
Product gelu_backward_product(std::span<const TensorType> inputs, const Attributes& attributes);

// The language-model head in chunks of rows. Logits are in x's type; their gradient takes their
// place. Products see a vocabulary padded to a multiple of 64, in the workspace.
void linear_cross_entropy(const KernelArguments& arguments);
void linear_cross_entropy_gradient(const KernelArguments& arguments);
void linear_cross_entropy_with_gradient(const KernelArguments& arguments);
std::int64_t head_workspace(const OpShapes& shapes);

/// A product of a row, and where its operands lie.
struct ProductCall {
  Product product;
  ProductOperands operands;
};
// What the rows above give the library, in order. Nothing is read through the pointers.
ProductCall matmul_call(const KernelArguments& arguments);
ProductCall linear_call(const KernelArguments& arguments);  // of linear_gelu too
ProductCall weight_gradient_call(const KernelArguments& arguments);
ProductCall gelu_backward_call(const KernelArguments& arguments);
std::vector<ProductCall> head_calls(std::string_view op, const KernelArguments& arguments);

/// The products of all steps of `programs`, each once, in ascending order, as multiply is asked for
/// them first: memory as it is planned for rank 0.
std::vector<Product> products_of(std::span<const Program> programs);

/// The product that the library is asked for: with leading dimensions, and a bias only where it may
/// be fused: one that does not begin at a multiple of 16 bytes is written to C first and added to.
/// Likewise its epilogue needs all operands to begin there.
Product multiplied(Product product, const ProductOperands& operands);
/// What is multiplied where the library has no algorithm with the product's epilogue.
Product without_epilogue(Product product);
/// A product on the context's stream. @throws as CublasLt::multiply does.
void run_product(const RunContext& context, Product product, const ProductOperands& operands,
                 std::byte* workspace);

/// The same for a product with an epilogue. @return false where an operand is not aligned, there is
/// nothing to multiply, or the library has no algorithm for it: nothing was enqueued
bool run_with_epilogue(const RunContext& context, const Product& product,
                       const ProductOperands& operands, std::byte* workspace);

/// Where a stream's products run.
struct ProductPlace {
  const CublasLt& library;
  cudaStream_t stream;
};
/// The handle of the stream's device, made when first asked for and kept. @throws CudaError where
/// there is no device or no library.
ProductPlace product_place(StreamRef stream);
/// The choices of this process, on all its devices.
Algorithms& process_algorithms();

}  // namespace ashlar::cuda
