// The sharded optimizer with parameters, gradients and states on a device without hardware: kernels
// on the emulator, collectives in the order of streams, all as late as events allow or ahead as the
// test chooses. The host is what it must equal, in bits.
#include <doctest/doctest.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "ashlar/buffer.hpp"
#include "ashlar/device_memory.hpp"
#include "ashlar/error.hpp"
#include "cuda/kernels.hpp"
#include "support/late_communicator.hpp"
#include "support/temporary_folder.hpp"
#include "wrap/toy_model.hpp"

namespace ashlar::test {
namespace {

using Ahead = LateDevice::Ahead;

struct Run {
  int ranks = 1, stage = 0;
  Memory memory = Memory::callers;
  DType dtype = DType::f32;
  std::optional<DType> reduce = {};
  std::int64_t bucket_bytes = 1 << 20;
  bool overlap = true;
  bool sgd = false;  // with momentum, instead of AdamW
  Ahead ahead = Ahead::nothing;
  int lost_sum = -1, lost_join = -1;  // across the replicas, where there are several
  int replicas = 1;                   // of `ranks` ranks each
};

struct Outcome {
  std::vector<std::uint32_t> bits;  // of parameters and averages
  std::vector<double> norms;
  int sums = 0, joins = 0;
};

void put(const TensorView& view, std::int64_t i, float value) {
  if (view.dtype == DType::f32) view.as<float>()[i] = value;
  if (view.dtype == DType::bf16) view.as<bf16>()[i] = bf16(value);
  if (view.dtype == DType::f16) view.as<f16>()[i] = f16(value);
}
float get(const TensorView& view, std::int64_t i) {
  if (view.dtype == DType::f32) return view.as<float>()[i];
  return view.dtype == DType::bf16 ? float(view.as<bf16>()[i]) : float(view.as<f16>()[i]);
}

/// A rank's communicators. `across` the replicas: null where there is one.
struct Ranks {
  Communicator& shards;
  Communicator* across = nullptr;
  std::int64_t rank() const {
    return (across != nullptr ? across->rank() * shards.size() : 0) + shards.rank();
  }
  std::int64_t size() const { return (across != nullptr ? across->size() : 1) * shards.size(); }
};

/// Forward and backward are work of the stream, which is not waited for.
class Model {
 public:
  Model(const Ranks& ranks, const Run& run, StreamRef stream, MemoryResource& memory)
      : run_(run), stream_(stream), gradients_(toy_parameters().size()) {
    ParameterList list;
    for (std::size_t p = 0; p < toy_parameters().size(); ++p) {
      const ToyParameter& toy = toy_parameters()[p];
      const ParameterOptions how{.unit = toy.unit, .trainable = toy.trainable, .decay = toy.decay};
      const Shape shape{toy.elements};
      if (run.memory == Memory::optimizers) {
        list.allocate(toy.name, shape, run.dtype, how);
        continue;
      }
      const TensorView values = take(memory, shape);
      gradients_[p] = take(memory, shape);
      const auto other = static_cast<float>(ranks.rank());  // is replaced by rank 0's
      stream_.enqueue([=] {
        for (std::int64_t i = 0; i < values.elements(); ++i)
          put(values, i, first_value(p, i) + other);
      });
      const bool known = run.memory == Memory::callers && toy.trainable;
      list.add(toy.name, values, known ? gradients_[p] : TensorView(), how);
    }
    ShardedOptions options{.stage = run.stage,
                           .bucket_bytes = run.bucket_bytes,
                           .overlap = run.overlap,
                           .clip = 2,
                           .reduce = run.reduce,
                           .replicas = ranks.across};
    options.memory = &memory;
    options.stream = stream;
    options.find_kernel = cuda::find_kernel;
    options.source = [](const Parameter& parameter, std::int64_t first, TensorView values) {
      std::size_t p = 0;
      while (toy_parameters()[p].name != parameter.name) ++p;
      for (std::int64_t i = 0; i < values.elements(); ++i)
        values.as<float>()[i] = first_value(p, first + i);
    };
    OptimizerConfig rule = AdamW{.lr = 0.05, .ema = 0.9};
    if (run.sgd) rule = Sgd{.lr = 0.05, .momentum = 0.9, .nesterov = true, .ema = 0.9};
    optimizer_ = std::make_unique<ShardedOptimizer>(list, ranks.shards, rule, options);
  }

  ShardedOptimizer& optimizer() { return *optimizer_; }

  void backward(std::int64_t sample) {
    for (const std::string unit : {"third", "second", "first"}) {
      const auto lease = optimizer_->gather(unit);
      for (std::size_t p = toy_parameters().size(); p-- > 0;) {
        const ToyParameter& toy = toy_parameters()[p];
        if (toy.unit != unit || !toy.trainable) continue;
        const TensorView values = lease[toy.name];
        const TensorView gradients =
            run_.memory == Memory::optimizers ? optimizer_->gradient(toy.name) : gradients_[p];
        stream_.enqueue([=] {
          for (std::int64_t i = 0; i < values.elements(); ++i)
            put(gradients, i, get(gradients, i) + toy_gradient(get(values, i), i, sample));
        });
        if (run_.memory == Memory::gradients_elsewhere)
          optimizer_->grad_ready(toy.name, gradients);
        else
          optimizer_->grad_ready(toy.name);
      }
    }
  }
  void zero_grad() {
    optimizer_->zero_grad();
    if (run_.memory != Memory::gradients_elsewhere) return;
    for (const TensorView& view : gradients_) fill_async(view.data, 0, view.bytes(), stream_);
  }

  std::vector<float> parameters() {
    std::vector<float> all;
    for (const bool average : {false, true})
      for (const ToyParameter& toy : toy_parameters()) {
        if (average && !toy.trainable) continue;
        std::vector<float> values(static_cast<std::size_t>(toy.elements));
        optimizer_->read(toy.name, {values.data(), DType::f32, {toy.elements}},
                         {.everywhere = true, .average = average});
        all.insert(all.end(), values.begin(), values.end());
      }
    return all;
  }

 private:
  /// At an odd address.
  TensorView take(MemoryResource& memory, const Shape& shape) {
    const std::int64_t element = size_of(run_.dtype);
    return buffers_
        .emplace_back(memory, (shape.elements() + 1) * element, Category::parameter, stream_)
        .view(run_.dtype, shape, element);
  }

  Run run_;
  StreamRef stream_;
  std::vector<Buffer> buffers_;
  std::vector<TensorView> gradients_;
  std::unique_ptr<ShardedOptimizer> optimizer_;
};

constexpr int kSteps = 3;

Outcome train_rank(const Ranks& ranks, const Run& run, StreamRef stream, MemoryResource& memory) {
  Model model(ranks, run, stream, memory);
  Outcome outcome;
  for (int step = 0; step < kSteps; ++step) {
    model.zero_grad();
    for (int micro_batch = 0; micro_batch < 2; ++micro_batch) {
      const std::int64_t sample = (2 * step + micro_batch) * ranks.size() + ranks.rank();
      if (micro_batch == 1) {
        model.backward(sample);
      } else {
        const auto more = model.optimizer().no_sync();
        model.backward(sample);
      }
    }
    outcome.norms.push_back(model.optimizer().step().grad_norm);
  }
  outcome.bits = bits_of(model.parameters());
  return outcome;
}

Outcome on_host(const Run& run) {
  Outcome outcome;
  launch_threads(run.ranks * run.replicas, [&](Communicator& world) {
    const auto shards = world.split(world.rank() / run.ranks, world.rank());
    const auto across = world.split(world.rank() % run.ranks, world.rank());
    const Ranks ranks{*shards, run.replicas > 1 ? across.get() : nullptr};
    const Outcome mine = train_rank(ranks, run, {}, host_memory());
    if (world.rank() == 0) outcome = mine;
  });
  return outcome;
}

/// Calls body(ranks, stream, memory, the communicator across the replicas or else the only one).
template <typename Body>
void on_late_devices(const Run& run, const Body& body) {
  launch_threads(run.ranks * run.replicas, [&](Communicator& threads) {
    LateDevice device(run.ahead);  // alike on all ranks, whose hosts wait for each other
    const StreamRef stream = device.stream();
    const auto late = [&](int color) {
      return std::make_unique<LateWorld>(threads.split(color, threads.rank()),
                                         threads.split(color, threads.rank()), device);
    };
    const auto shards = late(threads.rank() / run.ranks);
    const auto across = run.replicas > 1 ? late(threads.rank() % run.ranks) : nullptr;
    body(Ranks{*shards, across.get()}, stream, device.memory(), across ? *across : *shards);
  });
}

Outcome on_device(const Run& run) {
  Outcome outcome;
  on_late_devices(
      run, [&](const Ranks& ranks, StreamRef stream, MemoryResource& memory, LateWorld& last) {
        last.lost_sum = run.lost_sum;
        last.lost_join = run.lost_join;
        Outcome mine = train_rank(ranks, run, stream, memory);
        mine.sums = last.sums;
        mine.joins = last.joins;
        if (ranks.rank() == 0) outcome = mine;
      });
  return outcome;
}

void check_equal(const Run& run) {
  CAPTURE(run.ranks);
  CAPTURE(run.stage);
  CAPTURE(static_cast<int>(run.memory));
  CAPTURE(static_cast<int>(run.ahead));
  const Outcome expected = on_host(run), got = on_device(run);
  CHECK(got.bits == expected.bits);
  CHECK(got.norms == expected.norms);
  CHECK(expected.norms.front() > 2);  // it is clipped
}

}  // namespace

TEST_CASE("device: the sharded optimizer has the host's bits at all stages, wherever memory lies") {
  for (const int ranks : {1, 2})
    for (int stage = 0; stage <= 3; ++stage)
      for (const Memory memory : {Memory::callers, Memory::gradients_elsewhere, Memory::optimizers})
        if (stage < 3 || memory == Memory::optimizers)
          check_equal({.ranks = ranks, .stage = stage, .memory = memory});
}

TEST_CASE("device: replicas of the shards have the host's bits, wherever memory lies") {
  check_equal({.ranks = 1, .stage = 1, .replicas = 2});
  for (int stage = 0; stage <= 3; ++stage)
    for (const Memory memory : {Memory::callers, Memory::gradients_elsewhere, Memory::optimizers})
      if (stage < 3 || memory == Memory::optimizers)
        check_equal({.ranks = 2, .stage = stage, .memory = memory, .replicas = 2});
  for (const Ahead ahead : {Ahead::first, Ahead::others}) {
    check_equal({.ranks = 1, .stage = 0, .dtype = DType::f16, .ahead = ahead, .replicas = 3});
    check_equal({.ranks = 2,
                 .stage = 3,
                 .memory = Memory::optimizers,
                 .dtype = DType::bf16,
                 .bucket_bytes = 600,
                 .ahead = ahead,
                 .replicas = 2});
  }
}

TEST_CASE("device: the sharded optimizer in 16 bits, with buckets in flight, whoever runs ahead") {
  for (const Ahead ahead : {Ahead::nothing, Ahead::first, Ahead::others, Ahead::random}) {
    check_equal({.ranks = 2, .stage = 0, .dtype = DType::bf16, .ahead = ahead});
    check_equal({.ranks = 2, .stage = 1, .dtype = DType::f16, .ahead = ahead});
    check_equal({.ranks = 2,
                 .stage = 1,
                 .memory = Memory::gradients_elsewhere,
                 .dtype = DType::bf16,
                 .reduce = DType::f32,
                 .ahead = ahead});
    check_equal({.ranks = 2, .stage = 2, .bucket_bytes = 600, .overlap = false, .ahead = ahead});
    check_equal({.ranks = 2, .stage = 2, .sgd = true, .ahead = ahead});
    check_equal({.ranks = 2,
                 .stage = 3,
                 .memory = Memory::optimizers,
                 .dtype = DType::bf16,
                 .reduce = DType::f32,
                 .bucket_bytes = 600,
                 .ahead = ahead});
  }
}

// Of the sums in a row across replicas the first alone has something to wait for. Sums that start
// too early find gradients that are not there; copies, norms and kernels that run
// ahead of collectives find what was there before.
TEST_CASE("device: each order between streams that the sharded optimizer loses is seen") {
  for (const Run& run :
       {Run{.ranks = 2, .stage = 2, .overlap = false},
        Run{.ranks = 2, .stage = 3, .memory = Memory::optimizers, .overlap = false},
        Run{.ranks = 2, .stage = 0, .overlap = false, .replicas = 2},
        Run{.ranks = 2, .stage = 3, .memory = Memory::optimizers, .replicas = 2}}) {
    CAPTURE(run.stage);
    CAPTURE(run.replicas);
    const Outcome expected = on_device(run);
    const int sums = run.replicas > 1 ? 3 : 1;  // across replicas one for each unit
    REQUIRE(expected.sums == kSteps * sums);
    Run mutant = run;
    mutant.ahead = Ahead::others;
    for (mutant.lost_sum = 0; mutant.lost_sum < expected.sums; mutant.lost_sum += sums) {
      CAPTURE(mutant.lost_sum);
      CHECK(on_device(mutant).bits != expected.bits);
    }
    mutant = run;
    mutant.ahead = Ahead::first;
    for (mutant.lost_join = 0; mutant.lost_join < expected.joins; ++mutant.lost_join) {
      CAPTURE(mutant.lost_join);
      CHECK(on_device(mutant).bits != expected.bits);
    }
  }
}

TEST_CASE("device: the sharded optimizer saves and loads what the host does") {
  const TemporaryFolder folder;
  for (const int stage : {1, 3}) {
    const Run run{.ranks = 2,
                  .stage = stage,
                  .memory = stage == 3 ? Memory::optimizers : Memory::callers,
                  .dtype = DType::bf16,
                  .replicas = stage};
    std::vector<std::uint32_t> saved, loaded;
    const auto with_device = [&](const auto& body) {
      on_late_devices(
          run, [&](const Ranks& ranks, StreamRef stream, MemoryResource& memory, LateWorld&) {
            Model model(ranks, run, stream, memory);
            body(model, ranks.rank());
          });
    };
    with_device([&](Model& model, std::int64_t rank) {
      model.zero_grad();
      model.backward(rank);
      model.optimizer().step();
      model.optimizer().save(folder.path / std::to_string(stage));
      const auto bits = bits_of(model.parameters());
      if (rank == 0) saved = bits;
    });
    with_device([&](Model& model, std::int64_t rank) {
      model.optimizer().load(folder.path / std::to_string(stage));
      const auto bits = bits_of(model.parameters());
      if (rank == 0) loaded = bits;
    });
    CHECK(loaded == saved);
    launch_threads(1, [&](Communicator& world) {
      Model model({world}, run, {}, host_memory());
      model.optimizer().load(folder.path / std::to_string(stage));
      CHECK(bits_of(model.parameters()) == saved);
    });
  }
}

TEST_CASE("device: over a communicator of the host, on a stream that is a thread") {
  for (const int stage : {0, 2, 3}) {
    const Run run{
        .ranks = 2, .stage = stage, .memory = stage == 3 ? Memory::optimizers : Memory::callers};
    Outcome outcome;
    launch_threads(run.ranks, [&](Communicator& world) {
      const Stream stream;
      const Outcome mine = train_rank({world}, run, stream, host_memory());
      if (world.rank() == 0) outcome = mine;
    });
    CHECK(outcome.bits == on_host(run).bits);
  }
}

TEST_CASE("device: the sharded optimizer says what it does not do there") {
  launch_threads(1, [](Communicator& world) {
    const Stream stream;
    ParameterList list;
    list.allocate("w", {4}, DType::f32);
    ShardedOptions options{.guard = true};
    options.stream = stream;
    CHECK_THROWS_WITH_AS(
        ShardedOptimizer(list, world, AdamW{}, options),
        "ShardedOptions::guard watches the host's accesses to its own pages, which "
        "memory of a device has none of: leave guard or stream out",
        InvalidArgument);
  });
}

}  // namespace ashlar::test
