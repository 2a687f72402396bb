// Ranks whose libraries would choose otherwise take rank 0's choice before the first step, or are
// refused together; and no product of a step is met that was not chosen for by then.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <memory>
#include <optional>
#include <utility>

#include "ashlar/nn/language_model.hpp"
#include "ashlar/nn/llama.hpp"
#include "emulated/train_run.hpp"
#include "emulated_attention/fake_library.hpp"
#include "emulated_products/fixture.hpp"
#include "ops/cuda_backend.hpp"
#include "support/late_communicator.hpp"

namespace ashlar::test {
namespace {

using cuda::AlgorithmEntry;
using cuda::Algorithms;
using cuda::CublasLt;
using cuda::CublasLtLibrary;

/// A rank's libraries, with choices of their own.
class Gpu {
 public:
  /// @param way of adding, that its first heuristics have
  explicit Gpu(int way, std::span<const AlgorithmEntry> table = {}, int sm = 90,
               decltype(&cublasLtGetVersion) version = nullptr)
      : algorithms(table) {
    if (version != nullptr) library_.get_version = version;
    fake_cublaslt()->first_way = way;
    handle.emplace(library_, sm, algorithms);
    fake_cublaslt()->first_way = 0;
  }
  /// The calling thread's from now on.
  void use() const {
    own_library = &*handle;
    fake_attention() = attention;
  }

  Algorithms algorithms;
  std::optional<const CublasLt> handle;
  FakeAttention attention;

 private:
  CublasLtLibrary library_ = CublasLtLibrary::installed();
};
using Gpus = std::array<std::unique_ptr<Gpu>, 2>;

Gpus gpus(int first, int second) {
  return {std::make_unique<Gpu>(first), std::make_unique<Gpu>(second)};
}

/// A row of products takes its turn on the stream.
template <std::size_t row>
void run_in_turn(const KernelArguments& a) {
  a.context.stream.enqueue([k = a, context = a.context]() mutable {
    context.stream = {};
    cuda::kernels_of_products()[row].run(
        {context, k.attributes, k.inputs, k.outputs, k.workspace, k.plan, k.label});
  });
}
template <std::size_t... rows>
std::vector<DeviceKernel> rows_in_turn(std::index_sequence<rows...>) {
  std::vector<DeviceKernel> kernels(cuda::kernels_of_products().begin(),
                                    cuda::kernels_of_products().end());
  ((kernels.at(rows).run = run_in_turn<rows>), ...);
  return kernels;
}
constexpr std::size_t kRows = 8;
const DeviceKernel* find(std::string_view op) {
  static const std::vector<DeviceKernel> products = rows_in_turn(std::make_index_sequence<kRows>());
  REQUIRE(products.size() == kRows);
  const auto found = std::ranges::find(products, op, &DeviceKernel::op);
  if (found != products.end()) return &*found;
  const DeviceKernel* const attention = cuda::find_attention(op, 90);
  return attention != nullptr ? attention : cuda::find_kernel(op);
}

DeviceSide side_of(StreamRef stream) {
  DeviceSide side = emulated(stream);
  side.backend.find_kernel = find;
  side.agree_on_libraries = agree_on_libraries;
  return side;
}

const Run kRun{.ranks = 2, .stage = 2, .steps = 1, .layers = 1, .micro_batches = 1};
Run in_bf16() {
  Run run = kRun;
  run.dtype = DType::bf16;
  return run;
}

Outcome train(const Gpus& gpus, bool agrees = true) {
  Outcome outcome;
  launch_threads(2, [&](Communicator& threads) {
    gpus[static_cast<std::size_t>(threads.rank())]->use();
    LateDevice device(Ahead::nothing);
    DeviceSide side = side_of(device.stream());
    if (!agrees) side.agree_on_libraries = nullptr;
    LateCommunicator world(threads, device);
    const Outcome mine = train_rank(world, kRun, &side, device.memory());
    if (threads.rank() == 0) outcome = mine;
  });
  return outcome;
}

/// What each rank says of its choices, or is refused with.
template <class Choices>
std::array<Choices, 2> made_by(const Gpus& gpus, const std::function<Choices(TrainStep&)>& ask,
                               const std::function<Choices(const Error&)>& refused = {},
                               const std::vector<ForwardModel>& forwards = {},
                               const Run& run = kRun) {
  std::array<Choices, 2> all;
  launch_threads(2, [&](Communicator& world) {
    const auto rank = static_cast<std::size_t>(world.rank());
    gpus[rank]->use();
    const DeviceSide side = side_of({});
    try {
      TrainStep step(world, model_of(run), config_of(run), forwards, {{}, {}, &side});
      all[rank] = ask(step);
    } catch (const InvalidArgument& error) {
      if (!refused) throw;
      all[rank] = refused(error);
    }
  });
  return all;
}

LibraryChoices choices_of(const Gpus& gpus, const std::vector<ForwardModel>& forwards = {},
                          const Run& run = kRun) {
  const auto all = made_by<LibraryChoices>(
      gpus, [](TrainStep& step) { return step.library_choices(); }, {}, forwards, run);
  CHECK(all[0] == all[1]);
  return all[0];
}

std::string refusal_of(const Gpus& gpus, const Run& run = kRun) {
  const auto all = made_by<std::string>(
      gpus, [](TrainStep&) { return std::string(); },
      [](const Error& error) { return std::string(error.what()); }, {}, run);
  CHECK(all[0] == all[1]);
  return all[0];
}

}  // namespace

TEST_CASE("agreement: ranks that would choose otherwise have rank 0's bits") {
  Faults faults;
  const Outcome expected = train(gpus(1, 1));
  CHECK(train(gpus(1, 3)).bits == expected.bits);
  CHECK(train(gpus(3, 1)).bits == train(gpus(3, 3)).bits);
  CHECK(train(gpus(3, 3)).bits != expected.bits);
  CHECK(train(gpus(1, 1), false).bits == expected.bits);
  CHECK(train(gpus(1, 3), false).bits != expected.bits);
}

TEST_CASE("agreement: an entry of rank 0's table is what all ranks take, not a heuristic") {
  Faults faults;
  const Gpus learned = gpus(4, 4);
  const LibraryChoices four = choices_of(learned);
  const std::vector<AlgorithmEntry> table = learned[0]->algorithms.chosen();
  const int asked = faults->heuristics;
  Gpus committed{std::make_unique<Gpu>(1, table), std::make_unique<Gpu>(3)};
  CHECK(choices_of(committed) == four);
  CHECK(faults->heuristics == asked);
  committed = {std::make_unique<Gpu>(1), std::make_unique<Gpu>(3, table)};
  CHECK(choices_of(committed) != four);
  CHECK(faults->heuristics > asked);
}

TEST_CASE("agreement: the hash is of the step's choices, not of what else is run") {
  Faults faults;
  const Gpus same = gpus(1, 1);
  const LibraryChoices before = choices_of(same);
  CHECK(before.hash.size() == 16);
  CHECK_FALSE(before.device.empty());
  CHECK(choices_of(same) == before);
  const std::size_t chosen = same[0]->algorithms.chosen().size();
  const ForwardModel one_sample = [](Tracer& t) {
    t.output("loss", tiny_gpt_loss(tiny_gpt(1), {2, kTinySequence, DType::f32, 0, {}})(t));
  };
  CHECK(choices_of(same, {one_sample}) == before);
  CHECK(same[0]->algorithms.chosen().size() > chosen);

  std::vector<AlgorithmEntry> other = same[0]->algorithms.chosen();
  other[0].words = same[0]->handle->candidates(other[0].key.product, 1).at(0).words;
  const Gpus changed{std::make_unique<Gpu>(1, other), std::make_unique<Gpu>(1)};
  CHECK(choices_of(changed).hash != before.hash);
}

TEST_CASE("agreement: another GPU, another version, another choice made before: refused by all") {
  Faults faults;
  const auto with = [](std::unique_ptr<Gpu> second) {
    return refusal_of({std::make_unique<Gpu>(1), std::move(second)});
  };
  CHECK(with(std::make_unique<Gpu>(1)).empty());
  const std::string here = fmt::format("rank 0 has 'cuBLASLt {} on sm_90'", cublasLtGetVersion());
  CHECK(with(std::make_unique<Gpu>(1, std::span<const AlgorithmEntry>(), 100)) ==
        fmt::format("ranks disagree on the library of products, entry 0: {}, rank 1 has "
                    "'cuBLASLt {} on sm_100'",
                    here, cublasLtGetVersion()));
  CHECK(with(std::make_unique<Gpu>(1, std::span<const AlgorithmEntry>(), 90,
                                   [] { return std::size_t{139999}; })) ==
        fmt::format("ranks disagree on the library of products, entry 0: {}, rank 1 has "
                    "'cuBLASLt 139999 on sm_90'",
                    here));
  const Gpus learned = gpus(1, 1);
  choices_of(learned);
  auto second = std::make_unique<Gpu>(3);
  second->handle->choose(learned[0]->algorithms.chosen()[0].key.product);
  CHECK(with(std::move(second)).starts_with("ranks disagree on algorithms of products, entry 0: "));
}

TEST_CASE("agreement: attention that another rank serves otherwise is refused by all") {
  Faults faults;
  const auto with = [](const FakeAttention& second, const Run& run) {
    const Gpus both = gpus(1, 1);
    both[1]->attention = second;
    return refusal_of(both, run);
  };
  const std::string engine = "fake 1 engine", ours = "kernels of our own";
  const auto differ = [](int entry, const std::string& what, const std::string& a,
                         const std::string& b) {
    const std::string kind =
        "attention" + what + " of 1 x 6 positions, 2 heads of 8 channels on sm_90: ";
    return fmt::format(
        "ranks disagree on what serves attention, entry {}: rank 0 has '{}{}', rank 1 has '{}{}'",
        entry, kind, a, kind, b);
  };
  CHECK(with({}, in_bf16()).empty());
  CHECK(with({.plan = "fake 2 engine"}, in_bf16()) ==
        differ(0, " backward", engine + " backward", "fake 2 engine backward"));
  CHECK(with({.has_backward = false}, in_bf16()) ==
        differ(0, " backward", engine + " backward", ours));
  CHECK(with({.installed = false}, in_bf16()) ==
        differ(0, " backward", engine + " backward", ours));
  CHECK(with({.installed = false}, kRun).empty());  // f32 is ours everywhere
}

TEST_CASE("agreement: the hash is of the plans of attention too") {
  Faults faults;
  const Gpus both = gpus(1, 1);
  const auto hash_of = [&](const FakeAttention& attention, const Run& run) {
    both[0]->attention = both[1]->attention = attention;
    return choices_of(both, {}, run).hash;
  };
  const std::string first = hash_of({}, in_bf16());
  CHECK(hash_of({}, in_bf16()) == first);
  CHECK(hash_of({.plan = "fake 2 engine"}, in_bf16()) != first);
  CHECK(hash_of({.has_backward = false}, in_bf16()) != first);
  CHECK(hash_of({.installed = false}, kRun) == hash_of({}, kRun));
}

TEST_CASE("agreement: a step and its forwards meet no product that was not chosen for") {
  Faults faults;
  GptConfig untied = tiny_gpt(2, false);
  LlamaConfig llama;
  llama.layers = 1;
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const LanguageModel& model :
         {LanguageModel(tiny_gpt()), LanguageModel(untied), LanguageModel(llama)}) {
      const std::string name(model.name());
      CAPTURE(name);
      Gpu gpu(1);
      own_library = &*gpu.handle;
      launch_threads(2, [&](Communicator& world) {
        own_library = &*gpu.handle;
        const DeviceSide side = side_of({});
        TrainConfig config =
            config_of({.ranks = 2, .stage = 3, .dtype = dtype, .micro_batches = 1});
        const ModelTrace how{1, kTinySequence, dtype, 0, {}};
        TrainStep step(world, [&](Tracer& t) { return model.loss(t, how); }, config,
                       {[&](Tracer& t) { model.next_token(t, how); }}, {{}, {}, &side});
        const std::size_t chosen = gpu.algorithms.chosen().size();
        CHECK(chosen > 5);
        const auto load = [&](std::int64_t k, const Batch& batch) {
          if (batch.contains("targets")) return load_tokens(batch, k, world.rank());
          std::ranges::fill(batch.at("tokens").span<std::int32_t>(), 1);
        };
        world.barrier();
        step.step(load);
        step.forward(0, load);
        CHECK(gpu.algorithms.chosen().size() == chosen);
      });
      own_library = nullptr;
    }
  }
}

}  // namespace ashlar::test
