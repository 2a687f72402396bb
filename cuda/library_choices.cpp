// One choice for all ranks of what NVIDIA's libraries run in a step.
#include <fmt/format.h>

#include <array>
#include <set>
#include <string>

#include "base/hash.hpp"
#include "cuda/attention.hpp"
#include "cuda/planned_calls.hpp"
#include "cuda/products.hpp"
#include "graph/cost.hpp"
#include "ops/cuda_backend.hpp"

namespace ashlar {
namespace cuda {
namespace {

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

/// What all programs' products are multiplied by is agreed on. @return what the first's are
std::vector<AlgorithmEntry> agree_on_products(Communicator& ranks,
                                              std::span<const Program> programs, StreamRef stream) {
  const std::vector<Product> products = products_of(programs);
  if (products.empty()) return {};
  const CublasLt* library = nullptr;
  collectively(ranks, [&] { library = &product_place(stream).library; });
  require_agreement(ranks, "the library of products", std::array{library_line(*library)});
  agree_on(ranks, *library, replacements(agree_on(ranks, *library, products)));
  std::vector<AlgorithmEntry> of_step = chosen(*library, products_of(programs.first(1)));
  for (const AlgorithmEntry& entry : chosen(*library, replacements(of_step)))
    of_step.push_back(entry);
  return of_step;
}

/// What serves each kind of attention, once, in ascending order.
std::vector<std::string> attention_of(std::span<const Program> programs, StreamRef stream) {
  std::set<std::string> lines;
  for_each_planned_call(
      programs, stream,
      [&](const Node& node, const Backend& backend, const KernelArguments& arguments) {
        const DeviceKernel* const kernel = device_kernel(node, backend);
        std::string line = kernel == nullptr ? "" : attention_choice(*kernel, arguments);
        if (!line.empty()) lines.insert(std::move(line));
      });
  return {lines.begin(), lines.end()};
}

/// cuDNN's plans cannot be handed to another rank: they are compared. @return the first program's
std::vector<std::string> agree_on_attention(Communicator& ranks, std::span<const Program> programs,
                                            StreamRef stream) {
  std::vector<std::string> all, of_step;
  collectively(ranks, [&] {
    all = attention_of(programs, stream);
    of_step = attention_of(programs.first(1), stream);
  });
  require_agreement(ranks, "what serves attention", all);
  return of_step;
}

}  // namespace
}  // namespace cuda

std::uint64_t agree_on_libraries(Communicator& ranks, std::span<const Program> programs,
                                 StreamRef stream) {
  const auto products = cuda::agree_on_products(ranks, programs, stream);
  const auto attention = cuda::agree_on_attention(ranks, programs, stream);
  if (products.empty() && attention.empty()) return 0;
  std::uint64_t hash = cuda::hash_of(products);
  for (const std::string& line : attention) hash = fnv1a64(line, hash);
  return hash;
}

}  // namespace ashlar
