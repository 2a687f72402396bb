// Rows of attention over a fake library: operands, parts and workspaces are right when all bits are
// those of the CPU's kernel, as it computes every sequence and head of keys on its own.
#include <doctest/doctest.h>

#include "emulated_attention/fake_library.hpp"
#include "emulator/memory_map.hpp"
#include "support/attention_pair.hpp"

namespace ashlar::test {
namespace {

std::size_t calls_of(const DeviceCall& call, const std::vector<std::byte>& expected) {
  fake_attention().calls.clear();
  CHECK(run_once(call) == expected);
  CHECK(emulator::damage().empty());
  return fake_attention().calls.size();
}

/// What is said of a call of `kernel` before it is made, with operands at an address.
std::string choice_of(Pair& pair, const cuda::Kernel& kernel, bool backward,
                      std::uintptr_t address = 1 << 20) {
  pair.expected(false);
  const DeviceCall call = pair.call(kernel, backward);
  const auto at = reinterpret_cast<std::byte*>(address);
  std::vector<TensorView> inputs, outputs;
  for (const TensorView& view : call.inputs)
    inputs.push_back(view.data != nullptr ? TensorView(at, view.dtype, view.shape) : view);
  for (const TensorType& type : call.outputs) outputs.emplace_back(at, type.dtype, type.shape);
  return cuda::attention_choice(kernel, {.context = {},
                                         .attributes = call.attributes,
                                         .inputs = inputs,
                                         .outputs = outputs,
                                         .workspace = at});
}

}  // namespace

TEST_CASE("emulated: attention by a library reads and writes what the CPU's kernel does") {
  for (const int sm : {80, 90, 100})
    for (const bool grouped : {false, true})
      for (const Extents& e : {Extents{1, 2, 1, 1, 8}, Extents{3, 37, 4, 4, 16},
                               Extents{2, 70, 6, 2, 64}, Extents{2, 9, 3, 1, 128}}) {
        if (!grouped && e.heads != e.kv_heads) continue;
        Pair pair(e, grouped);
        for (const bool backward : {false, true}) {
          const cuda::Kernel* kernel = cuda::find_attention(pair.op(backward), sm);
          REQUIRE(kernel != nullptr);
          CAPTURE(pair.op(backward));
          const std::vector<std::byte> expected = pair.expected(backward);
          CHECK(calls_of(pair.call(*kernel, backward), expected) == 1);
        }
      }
}

TEST_CASE("emulated: a backward too large for 128 MiB runs in equal parts") {
  const auto parts = [](const Extents& e, bool grouped, bool deterministic) {
    Pair pair(e, grouped);
    pair.expected(false);
    const std::vector<std::byte> expected = pair.expected(true);
    const DeviceCall call =
        pair.call(*cuda::find_attention(pair.op(true), 90, deterministic), true);
    const std::size_t calls = calls_of(call, expected);
    for (const auto& part : fake_attention().calls)
      CHECK(cuda::library_bytes(part) <= cuda::kMostLibraryBytes);
    return calls;
  };
  CHECK(parts({64, 512, 4, 4, 8}, false, true) == 2);    // 32 sequences each
  CHECK(parts({2, 2048, 18, 18, 8}, false, true) == 4);  // 9 heads each
  CHECK(parts({1, 2048, 24, 6, 8}, true, true) == 2);    // 3 groups of 4 heads
  CHECK(parts({64, 512, 4, 4, 8}, false, false) == 1);
}

TEST_CASE("emulated: parts are the largest that divide a problem, and stay within 128 MiB") {
  for (const int sm : {80, 90, 100})
    for (const std::int64_t positions : {128, 1000, 1024, 2048})
      for (std::int64_t sequences = 1; sequences <= 64; ++sequences)
        for (const std::int64_t heads : {12, 16}) {
          const cuda::AttentionProblem whole{.sm = sm,
                                             .backward = true,
                                             .sequences = sequences,
                                             .positions = positions,
                                             .heads = heads,
                                             .kv_heads = heads,
                                             .head_size = 64};
          const cuda::AttentionProblem part = cuda::part_of(whole);
          CAPTURE(describe(whole));
          CAPTURE(describe(part));
          CHECK(cuda::library_bytes(part) <= cuda::kMostLibraryBytes);
          CHECK(sequences % part.sequences == 0);
          CHECK(heads % part.heads == 0);
          CHECK(part.heads == part.kv_heads);
          const bool whole_sequences = part.heads == heads;
          CHECK((whole_sequences || part.sequences == 1));
          cuda::AttentionProblem more = part;
          for (std::int64_t n = (whole_sequences ? part.sequences : part.heads) + 1;
               n <= (whole_sequences ? sequences : heads); ++n) {
            if ((whole_sequences ? sequences : heads) % n != 0) continue;
            (whole_sequences ? more.sequences : more.heads) = n;
            more.kv_heads = more.heads;
            CHECK(cuda::library_bytes(more) > cuda::kMostLibraryBytes);
          }
        }
}

TEST_CASE("emulated: what the library does not take runs on kernels of our own") {
  const auto own = [](Pair pair, bool misaligned = false, bool forward_too = true) {
    for (const bool backward : {false, true}) {
      if (!backward && !forward_too) continue;
      pair.expected(false);
      const std::string op = pair.op(backward);
      const cuda::Kernel& kernel = *cuda::find_attention(op, 90);
      DeviceCall call = pair.call(kernel, backward);
      call.misaligned = misaligned;
      DeviceCall ours = call;
      ours.run = cuda::find_kernel(op)->run;
      CAPTURE(op);
      CHECK(calls_of(call, run_once(ours)) == 0);
    }
  };
  own(Pair({2, 9, 2, 2, 8}, false, DType::f32));
  own(Pair({2, 9, 2, 1, 8}, true, DType::f32));
  own(Pair({2, 9, 2, 2, 12}, false));
  own(Pair({2, 1, 2, 2, 8}, false));
  own(Pair({2, 9, 2, 2, 8}, false), true);
  fake_attention().installed = false;
  own(Pair({2, 9, 2, 2, 8}, false));
  own(Pair({2, 9, 4, 2, 16}, true));
  fake_attention().installed = true;
  fake_attention().has_backward = false;
  own(Pair({2, 9, 2, 2, 8}, false), false, false);
  fake_attention().has_backward = true;
}

TEST_CASE("emulated: what serves attention is said before it is called") {
  Pair packed({2, 9, 2, 2, 8}, false), grouped({2, 9, 4, 2, 16}, true);
  const auto row = [](const Pair& pair, bool backward, int sm = 90,
                      bool deterministic = true) -> const cuda::Kernel& {
    return *cuda::find_attention(pair.op(backward), sm, deterministic);
  };
  const std::string forward = "attention of 2 x 9 positions, 2 heads of 8 channels on sm_";
  const std::string backward =
      "attention backward of 2 x 9 positions, 4 heads over 2 of keys of 16 channels on sm_90: ";
  const std::string engine = "fake 1 engine", ours = "kernels of our own";
  CHECK(choice_of(packed, row(packed, false), false) == forward + "90: " + engine);
  CHECK(choice_of(packed, row(packed, false, 80, false), false) == forward + "80: " + engine);
  CHECK(choice_of(packed, row(packed, false), false, (1 << 20) + 8) == forward + "90: " + ours);
  CHECK(choice_of(grouped, row(grouped, true), true) == backward + engine + " backward");
  fake_attention().has_backward = false;
  CHECK(choice_of(packed, row(packed, false), false) == forward + "90: " + engine);
  CHECK(choice_of(grouped, row(grouped, true), true) == backward + ours);
  fake_attention().has_backward = true;
  fake_attention().installed = false;
  CHECK(choice_of(packed, row(packed, false), false) == forward + "90: " + ours);
  fake_attention().installed = true;

  Pair parts({64, 512, 4, 4, 8}, false);
  CHECK(choice_of(parts, row(parts, true), true).starts_with("attention backward of 32 x 512 "));
  Pair f32({2, 9, 2, 2, 8}, false, DType::f32);
  CHECK(choice_of(f32, row(f32, false), false).empty());
  CHECK(choice_of(packed, *cuda::find_kernel(packed.op(false)), false).empty());
}

TEST_CASE("emulated: attention by a library is of sm_80, sm_90 and sm_100, and of these rows") {
  for (const int sm : {75, 86, 89, 103, 120})
    CHECK(cuda::find_attention("causal_attention", sm) == nullptr);
  CHECK(cuda::find_attention("gelu", 90) == nullptr);
  for (const bool deterministic : {false, true})
    CHECK(cuda::find_attention("causal_attention", 90, deterministic)->op == "causal_attention");
}

TEST_CASE("emulated: the workspace of GPT-2's attention, without a device") {
  const Attributes heads{{"heads", std::int64_t{12}}};
  const TensorType qkv{DType::bf16, {16, 1024, 3 * 768}};
  const auto bytes = [&](std::string_view op, int sm, bool deterministic) {
    return cuda::find_attention(op, sm, deterministic)->workspace({{&qkv, 1}, {}, heads});
  };
  constexpr std::int64_t kPadding = 1024 + 256, kRows = 16 * 12 * 1024;
  CHECK(bytes("causal_attention", 90, true) == kPadding);
  // Row sums; then for the 4 of 16 sequences of a part sums of out dout, and gradients of scores.
  CHECK(bytes("causal_attention_backward", 90, true) ==
        4 * kRows + 4 * kRows / 4 + 2 * (kRows / 4) * 1024 + kPadding);
  CHECK(bytes("causal_attention_backward", 90, false) ==
        4 * kRows + 4 * kRows + 4 * kRows * 64 + kPadding);
}

}  // namespace ashlar::test
