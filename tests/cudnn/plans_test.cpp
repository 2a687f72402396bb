// Every graph of attention, built to its plan for GPUs that are not here.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <array>
#include <fstream>
#include <random>
#include <sstream>

#include "ashlar/error.hpp"
#include "cuda/cudnn_graph.hpp"
#include "cudnn/devices.hpp"

namespace ashlar::test {
namespace {

using cuda::AttentionGraph;
using cuda::AttentionProblem;
using cuda::CudnnLibrary;

AttentionProblem with_strides(AttentionProblem p, bool packed) {
  const std::int64_t channels = p.heads * p.head_size;
  p.query_stride = packed ? 3 * channels : channels;
  p.key_stride = packed ? 3 * channels : p.kv_heads * p.head_size;
  p.out_stride = channels;
  return p;
}

AttentionGraph plan(const AttentionProblem& p) {
  return AttentionGraph(CudnnLibrary::installed(), p, description_of(p.sm));
}

/// "sm pass sequences positions heads kv_heads channels": a line of the committed table, but for
/// what cuDNN says of it, "bytes engine".
AttentionProblem problem_of(const std::string& line) {
  std::istringstream words(line);
  AttentionProblem p;
  std::string pass;
  words >> p.sm >> pass >> p.sequences >> p.positions >> p.heads >> p.kv_heads >> p.head_size;
  REQUIRE_MESSAGE(words, line);
  p.backward = pass != "forward";
  p.deterministic = pass != "fast";
  return with_strides(p, p.heads == p.kv_heads);
}

std::string line_of(const AttentionProblem& p, const AttentionGraph& graph) {
  return fmt::format("{} {} {} {} {} {} {} {} {}", p.sm,
                     !p.backward       ? "forward"
                     : p.deterministic ? "backward"
                                       : "fast",
                     p.sequences, p.positions, p.heads, p.kv_heads, p.head_size, graph.workspace(),
                     graph.engine());
}

}  // namespace

TEST_CASE("cuda: workspaces and engines of attention are those of the committed table") {
  const bool of_table = CudnnLibrary::installed().get_version() / 100 == 919;
  std::ifstream file(ASHLAR_TEST_DIR "/cudnn/workspaces.txt");
  int entries = 0;
  for (std::string line; std::getline(file, line);) {
    if (line.empty() || line[0] == '#') continue;
    ++entries;
    const AttentionProblem p = problem_of(line);
    const AttentionGraph graph = plan(p);
    CAPTURE(line);
    CHECK(graph.workspace() <= cuda::library_bytes(p));
    CHECK(graph.workspace() + 2048 > cuda::library_bytes(p));
    if (of_table) CHECK(line_of(p, graph) == line);
  }
  CHECK(entries >= 60);
}

TEST_CASE("cuda: any shape that the rows take has a plan, within the planned workspace") {
  std::mt19937_64 random(5);
  const auto pick = [&](std::initializer_list<std::int64_t> of) {
    return of.begin()[random() % of.size()];
  };
  for (int trial = 0; trial < 24; ++trial) {
    AttentionProblem p{.sm = static_cast<int>(pick({80, 90, 100})),
                       .backward = trial % 3 != 0,
                       .deterministic = trial % 3 != 1,
                       .sequences = pick({1, 2, 3, 8}),
                       .positions = pick({2, 7, 64, 65, 77, 128, 129, 300, 1000, 1024, 2048}),
                       .kv_heads = pick({1, 2, 3, 12}),
                       .head_size = 8 * static_cast<std::int64_t>(1 + random() % 16)};
    p.heads = p.kv_heads * pick({1, 1, 2, 4});
    p = with_strides(p, p.heads == p.kv_heads && trial % 2 == 0);
    INFO(describe(p));
    CHECK(plan(p).workspace() <= cuda::library_bytes(p));
  }
}

TEST_CASE("cuda: parts of a backward have plans, within 128 MiB") {
  for (const int sm : {80, 90, 100})
    for (const auto& [sequences, positions, heads] :
         {std::tuple(16, 1024, 12), std::tuple(64, 2048, 16), std::tuple(7, 1024, 25)}) {
      const AttentionProblem whole = with_strides({.sm = sm,
                                                   .backward = true,
                                                   .sequences = sequences,
                                                   .positions = positions,
                                                   .heads = heads,
                                                   .kv_heads = heads,
                                                   .head_size = 64},
                                                  true);
      const AttentionGraph graph = plan(cuda::part_of(whole));
      CHECK(graph.workspace() <= cuda::kMostLibraryBytes);
    }
}

TEST_CASE("cuda: operands are given to the graph in its order") {
  for (const bool backward : {false, true}) {
    const AttentionProblem p = with_strides({.sm = 90,
                                             .backward = backward,
                                             .sequences = 2,
                                             .positions = 64,
                                             .heads = 2,
                                             .kv_heads = 2,
                                             .head_size = 64},
                                            true);
    const AttentionGraph graph = plan(p);
    constexpr std::size_t kLse = 4;
    for (std::size_t i = 0; i < (backward ? 9 : 5); ++i) {
      alignas(256) std::byte memory[512];  // never read: an address is refused first
      std::array<std::byte*, 9> at;
      at.fill(memory);
      at[i] += 2;
      std::string message;
      try {
        graph.run(nullptr, {at[0], at[1], at[2], at[3], at[4], at[5], at[6], at[7], at[8]}, memory);
      } catch (const CudaError& error) {
        message = error.what();
      }
      CAPTURE(message);
      if (i != kLse)  // its address may be any
        CHECK(message.find(fmt::format("Uid {}: device pointer is not aligned", i + 1)) !=
              std::string::npos);
    }
  }
}

TEST_CASE("cuda: what cuDNN refuses is said in one line") {
  const auto refused = [](const AttentionProblem& p, const std::string& device) -> std::string {
    try {
      const AttentionGraph graph(CudnnLibrary::installed(), p, device);
    } catch (const CudaError& error) {
      return error.what();
    }
    return {};
  };
  const AttentionProblem good = with_strides(
      {.sm = 90, .sequences = 2, .positions = 64, .heads = 2, .kv_heads = 2, .head_size = 64},
      true);
  CHECK(refused(good, description_of(90)).empty());
  AttentionProblem odd = good;
  odd.head_size = 5;
  odd = with_strides(odd, true);
  for (const std::string& message :
       {refused(odd, description_of(90)), refused(good, "{}"), refused(good, "nothing")}) {
    CAPTURE(message);
    CHECK(message.starts_with("cuDNN: attention of 2 x 64 positions, 2 heads of "));
    CHECK(message.find('\n') == std::string::npos);
    CHECK(message.size() < 700);
  }
}

}  // namespace ashlar::test
