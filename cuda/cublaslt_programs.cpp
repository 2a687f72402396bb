// Which products the programs of a step hold, and one choice of their algorithms for all ranks.
#include <fmt/format.h>

#include <array>
#include <set>
#include <string>

#include "cuda/products.hpp"
#include "ops/cuda_backend.hpp"

namespace ashlar {
namespace cuda {
namespace {

/// Where the arenas would begin: nothing is read or written there.
constexpr std::uintptr_t kSomewhere = 1 << 20;

std::byte* planned_address(const Operand& operand) {
  return reinterpret_cast<std::byte*>(kSomewhere + static_cast<std::uintptr_t>(operand.offset));
}

std::vector<TensorView> planned_views(const std::vector<Operand>& operands) {
  std::vector<TensorView> views;
  for (const Operand& o : operands)
    views.push_back(o.present
                        ? TensorView(planned_address(o), o.type.dtype, o.type.shape, o.strides)
                        : TensorView());
  return views;
}

std::vector<ProductCall> calls_of(std::string_view op, const KernelArguments& arguments) {
  if (op == "matmul") return {matmul_call(arguments)};
  if (op == "linear" || op == "linear_gelu") return {linear_call(arguments)};
  if (op == "linear_weight_gradient") return {weight_gradient_call(arguments)};
  if (op == "linear_gelu_backward") return {gelu_backward_call(arguments)};
  if (op.starts_with("linear_cross_entropy")) return head_calls(op, arguments);
  return {};
}

std::string library_line(const CublasLt& library) {
  const AlgorithmKey key = library.key_of({});
  return fmt::format("cuBLASLt {} on sm_{}", key.version, key.sm);
}

/// What rank 0 chooses, in use on every rank that has not chosen before. Collective.
std::vector<AlgorithmEntry> choose_as_rank_0(Communicator& ranks, const CublasLt& library,
                                             std::span<const Product> products) {
  std::vector<AlgorithmWords> words(products.size());
  collectively(ranks, [&] {
    for (std::size_t i = 0; ranks.rank() == 0 && i < products.size(); ++i)
      words[i] = library.choose(products[i]).words;
  });
  const auto count = std::ssize(words) * static_cast<std::int64_t>(words[0].size());
  ranks.broadcast({words.data(), DType::i64, {count}}, 0, "algorithms of products").wait();
  std::vector<AlgorithmEntry> entries;
  collectively(ranks, [&] {
    for (std::size_t i = 0; i < products.size(); ++i)
      entries.push_back(library.choose(products[i], &words[i]));
  });
  return entries;
}

/// The same, compared.
std::vector<AlgorithmEntry> agree_on(Communicator& ranks, const CublasLt& library,
                                     std::span<const Product> products) {
  if (products.empty()) return {};
  const std::vector<AlgorithmEntry> entries = choose_as_rank_0(ranks, library, products);
  std::vector<std::string> lines;
  for (const AlgorithmEntry& entry : entries) lines.push_back(table_line(entry));
  require_agreement(ranks, "algorithms of products", lines);
  return entries;
}

/// What is multiplied instead of those that the library has no algorithm for.
std::vector<Product> replacements(std::span<const AlgorithmEntry> entries) {
  std::vector<Product> products;
  for (const AlgorithmEntry& entry : entries)
    if (entry.words == kNoAlgorithm) products.push_back(without_epilogue(entry.key.product));
  return products;
}

std::vector<AlgorithmEntry> chosen(const CublasLt& library, std::span<const Product> products) {
  std::vector<AlgorithmEntry> entries;
  for (const Product& product : products) entries.push_back(library.choose(product));
  return entries;
}

}  // namespace

std::vector<Product> products_of(std::span<const Program> programs) {
  std::set<Product> products;
  const RunContext context;
  for (const Program& program : programs) {
    for (const Step& step : program.steps) {
      const Node& node = program.graph.nodes[static_cast<std::size_t>(step.node)];
      const auto inputs = planned_views(step.inputs), outputs = planned_views(step.outputs);
      for (const auto& [product, operands] :
           calls_of(node.op->name, {.context = context,
                                   .attributes = node.attributes,
                                   .inputs = inputs,
                                   .outputs = outputs,
                                   .workspace = planned_address(step.workspace)})) {
        const Gemm& g = product.gemm;
        if (g.m * g.n * g.k * product.batch > 0) products.insert(multiplied(product, operands));
      }
    }
  }
  return {products.begin(), products.end()};
}

}  // namespace cuda

std::uint64_t agree_on_products(Communicator& ranks, std::span<const Program> programs,
                                StreamRef stream) {
  using namespace cuda;
  const std::vector<Product> products = products_of(programs);
  if (products.empty()) return 0;
  const CublasLt* library = nullptr;
  collectively(ranks, [&] { library = &product_place(stream).library; });
  require_agreement(ranks, "the library of products", std::array{library_line(*library)});
  agree_on(ranks, *library, replacements(agree_on(ranks, *library, products)));
  std::vector<AlgorithmEntry> of_step = chosen(*library, products_of(programs.first(1)));
  for (const AlgorithmEntry& entry : chosen(*library, replacements(of_step)))
    of_step.push_back(entry);
  return hash_of(of_step);
}

}  // namespace ashlar
