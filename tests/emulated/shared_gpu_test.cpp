// Ranks as threads that share a device: what holds of every communicator, training at all stages,
// and each order between their streams that is lost.
#include "cuda/shared_gpu.hpp"

#include <doctest/doctest.h>

#include <array>
#include <memory>
#include <string>
#include <thread>

#include "ashlar/error.hpp"
#include "comm/conformance.hpp"
#include "comm/staged.hpp"
#include "emulated/train_run.hpp"

namespace ashlar {
namespace {

using namespace test;  // NOLINT: what its own header declares
using cuda::SharedGpuCommunicator;

/// Collectives of the default stream go to one of the device.
class OnStream final : public detail::ForwardingCommunicator {
 public:
  OnStream(Communicator& inner, StreamRef stream) : ForwardingCommunicator(inner), own_(stream) {}
  OnStream(std::unique_ptr<Communicator> inner, StreamRef stream)
      : ForwardingCommunicator(*inner), owned_(std::move(inner)), own_(stream) {}

  Work all_gather(std::span<const Transfer> flats, std::string_view label,
                  StreamRef stream) override {
    return inner_.all_gather(flats, label, on(stream));
  }
  Work reduce_scatter(std::span<const Transfer> flats, const ReduceOptions& options,
                      std::string_view label, StreamRef stream) override {
    return inner_.reduce_scatter(flats, options, label, on(stream));
  }
  Work all_reduce(TensorView values, std::string_view label, StreamRef stream) override {
    return inner_.all_reduce(values, label, on(stream));
  }
  Work broadcast(TensorView values, int root, std::string_view label, StreamRef stream) override {
    return inner_.broadcast(values, root, label, on(stream));
  }
  Work all_to_all(TensorView send, TensorView recv, std::string_view label,
                  StreamRef stream) override {
    return inner_.all_to_all(send, recv, label, on(stream));
  }
  std::unique_ptr<Communicator> split(int color, int key) override {
    return std::make_unique<OnStream>(inner_.split(color, key), own_);
  }

 private:
  StreamRef on(StreamRef stream) const { return stream.is_inline() ? own_ : stream; }

  std::unique_ptr<Communicator> owned_;
  StreamRef own_;
};

cuda::SharedGpuPlace place_on(StreamRef stream, std::int64_t scratch_bytes) {
  return {detail::borrowed(host_memory()), stream, nullptr, scratch_bytes};
}

/// A device, two streams of it for each rank: kernels', collectives'.
struct Card {
  Card(int ranks, Ahead ahead, unsigned seed) : device(ahead, seed) {
    for (int i = 0; i < 2 * ranks; ++i) streams.push_back(device.stream());
  }
  LateDevice device;
  std::vector<StreamRef> streams;
};

/// @param find the device's kernels
Outcome train(const Run& run,
              const DeviceKernel* (*find)(std::string_view op) = cuda::find_kernel) {
  Card card(run.ranks, run.ahead, run.seed);
  Outcome outcome;
  launch_threads(run.ranks, [&](Communicator& threads) {
    const auto own = 2 * static_cast<std::size_t>(threads.rank());
    DeviceSide side = emulated(card.streams[own]);
    side.backend.find_kernel = find;
    SharedGpuCommunicator world(
        threads, {detail::borrowed(card.device.memory()), card.streams[own + 1], nullptr, 4 << 10});
    const Outcome mine = train_rank(world, run, &side, card.device.memory());
    if (threads.rank() == 0) outcome = mine;
  });
  return outcome;
}

}  // namespace

TEST_CASE("shared gpu: a step's predicted peak is what the rank's cache has given out") {
  for (const Run& run : {Run{.ranks = 1}, Run{.ranks = 2, .stage = 3, .steps = 2},
                         Run{.ranks = 4, .stage = 3, .steps = 2, .group = 2}}) {
    CAPTURE(run.ranks);
    Card card(run.ranks, Ahead::nothing, run.seed);
    launch_threads(run.ranks, [&](Communicator& threads) {
      const auto own = 2 * static_cast<std::size_t>(threads.rank());
      const auto pages = host_pages();
      const auto cache = std::make_shared<CachingResource>(*pages);
      DeviceSide side = emulated(card.streams[own]);
      side.memory = cache;
      SharedGpuCommunicator world(threads, {cache, card.streams[own + 1], nullptr});
      train_rank(world, run, &side);  // which compares peaks
      CHECK(cache->statistics().peak_live_bytes > (run.ranks == 1 ? 32 << 10 : 32 << 20));
    });
  }
}

TEST_CASE("shared gpu: it is a communicator, whatever the room for parts") {
  for (const int ranks : {1, 2, 3, 4}) {
    for (const std::int64_t scratch : {1, 32 << 20}) {
      CAPTURE(ranks);
      CAPTURE(scratch);
      launch_threads(ranks, [&](Communicator& threads) {
        const Stream calls, collectives;
        SharedGpuCommunicator gpu(threads, place_on(collectives, scratch));
        OnStream communicator(gpu, calls);
        check_all_gather(communicator, 3);
        check_reduce_scatter(communicator, 4);
        check_all_reduce(communicator, 5);
        check_broadcast(communicator, 6);
        check_all_to_all(communicator, 7);
        check_messages(communicator, 8);
        check_split(communicator);
        check_many_flats(communicator);
        check_stream_order(communicator);
        check_agreement(communicator);
        check_bad_arguments(communicator);
      });
    }
  }
}

TEST_CASE(
    "shared gpu: a GPT's losses have the same bits at all stages, and the CPU's bits of sums") {
  for (const int ranks : {1, 2, 4}) {
    const Run run{.ranks = ranks, .steps = 2, .layers = 1, .micro_batches = 2};
    const Outcome expected = train(run);
    for (const int stage : {1, 2, 3}) {
      CAPTURE(ranks);
      CAPTURE(stage);
      Run other = run;
      other.stage = stage;
      CHECK(train(other).bits == expected.bits);
    }
    Outcome over_host;
    launch_threads(ranks, [&](Communicator& world) {
      const Stream stream;
      const DeviceSide side = emulated(stream);
      const Outcome mine = train_rank(world, run, &side);
      if (world.rank() == 0) over_host = mine;
    });
    CHECK(over_host.bits == expected.bits);
  }
}

TEST_CASE("shared gpu: nor do they depend on which streams run ahead") {
  for (const int stage : {0, 3}) {
    const Run run{.ranks = 2, .stage = stage, .dtype = DType::bf16, .steps = 2, .layers = 1};
    const Outcome expected = train(run);
    for (const unsigned seed : {1U, 2U}) {
      CAPTURE(stage);
      Run other = run;
      other.ahead = Ahead::random;
      other.seed = seed;
      CHECK(train(other).bits == expected.bits);
    }
  }
}

TEST_CASE("shared gpu: two copies of the model state, whose sums the CPU's row rounds alike") {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const Run run{.ranks = 2, .stage = 2, .dtype = dtype, .steps = 2, .layers = 1, .group = 1};
    const auto all_but_one = [](std::string_view op) {
      return op == "round_sums" ? nullptr : cuda::find_kernel(op);
    };
    CHECK(train(run).bits == train(run, all_but_one).bits);
  }
}

TEST_CASE("shared gpu: a rank that fails, leaves or calls something else ends the others' calls") {
  const auto ends = [](const std::function<void(Communicator&, Work&)>& third, const char* said) {
    std::string error;
    try {
      launch_threads(3, [&](Communicator& threads) {
        const Stream stream;
        SharedGpuCommunicator gpu(threads, place_on(stream, 1 << 20));
        gpu.set_timeout(std::chrono::milliseconds(threads.rank() == 0 ? 300 : 20'000));
        std::vector<float> values(100, 1.0F);
        const TensorView view(reinterpret_cast<std::byte*>(values.data()), DType::f32, {100});
        Work work;
        if (threads.rank() == 2)
          third(gpu, work);
        else
          work = gpu.all_reduce(view, "values", stream);
        work.wait();
      });
    } catch (const Error& failure) {
      error = failure.what();
    }
    CAPTURE(error);
    CHECK(error.find(said) != std::string::npos);
  };
  ends([](Communicator& gpu, Work&) { gpu.abort("out of tokens"); }, "out of tokens");
  ends([](Communicator&, Work&) {}, "rank 2 has left");
  ends([](Communicator&, Work&) { std::this_thread::sleep_for(std::chrono::seconds(2)); },
       "rank 2 has not arrived within 300 ms");
  ends(
      [](Communicator& gpu, Work& work) {
        static std::vector<float> other(100);
        const Stream stream;
        const TensorView view(reinterpret_cast<std::byte*>(other.data()), DType::f32, {100});
        work = gpu.broadcast(view, 0, "others", stream);
      },
      "ranks diverged");
}

// One of each collective, between work that makes what it sends and work that spoils it afterwards.
// Ranks' hosts and streams run in any order that events allow; a wait that is left out allows more.
namespace {

constexpr std::int64_t kPart = 40;  // an all-reduce has parts of 64 elements

/// What a rank has received. @param scratch of two ranks' buffers, on the device
std::vector<float> exchange_values(Communicator& gpu, StreamRef stream, float* mine) {
  float* const wide = mine;                // 2 parts
  float* const narrow = mine + 2 * kPart;  // 1 part
  auto result = std::make_shared<std::vector<float>>();
  const auto view = [](float* data, std::int64_t count) {
    return TensorView(reinterpret_cast<std::byte*>(data), DType::f32, {count});
  };
  const auto fill = [&](float base) {
    stream.enqueue([=] {
      for (std::int64_t i = 0; i < 3 * kPart; ++i) mine[i] = base + static_cast<float>(i);
    });
  };
  const auto keep = [&](const float* data, std::int64_t count) {
    stream.enqueue([=] { result->insert(result->end(), data, data + count); });
    fill(-1000);  // nobody reads it any more
  };
  const float base = 100.0F * static_cast<float>(gpu.rank() + 1);
  fill(base);
  const Transfer gather{view(narrow, kPart), view(wide, 2 * kPart)};
  gpu.all_gather({&gather, 1}, "gather", stream).join(stream);
  keep(wide, 2 * kPart);
  fill(base + 1);
  const Transfer sum{view(wide, 2 * kPart), view(narrow, kPart)};
  gpu.reduce_scatter({&sum, 1}, {}, "sum", stream).join(stream);
  keep(narrow, kPart);
  fill(base + 2);
  gpu.all_reduce(view(wide, 2 * kPart), "all", stream).join(stream);
  keep(wide, 2 * kPart);
  gpu.barrier("all is enqueued");
  stream.synchronize();
  gpu.barrier("all has run");
  return *result;
}

std::vector<float> exchange_on(Card& card) {
  Buffer memory(card.device.memory(), 2 * 128 * 4, Category::activation);
  std::vector<std::vector<float>> results(2);
  launch_threads(2, [&](Communicator& threads) {
    const auto rank = static_cast<std::size_t>(threads.rank());
    SharedGpuCommunicator gpu(threads, {detail::borrowed(card.device.memory()),
                                        card.streams[2 * rank + 1], nullptr, 1 << 10});
    results[rank] = exchange_values(gpu, card.streams[2 * rank],
                                    reinterpret_cast<float*>(memory.data()) + 128 * rank);
  });
  results[0].insert(results[0].end(), results[1].begin(), results[1].end());
  return results[0];
}

}  // namespace

TEST_CASE("shared gpu: a wait that is left out shows, unless a stream waits for itself") {
  Card whole(2, Ahead::nothing, 1);
  const std::vector<float> expected = exchange_on(whole);
  for (unsigned seed = 0; seed < 50; ++seed) {
    Card card(2, Ahead::shuffled, seed);
    REQUIRE(exchange_on(card) == expected);
  }
  const std::array<int, 2> own_waits{0, 4};  // by stream: at an end, or half-way of an all-reduce
  for (const int stream : {0, 1}) {
    const int waits = whole.device.waits(stream);
    CHECK(waits == (stream == 0 ? 3 : 4 + 4 + 6));
    int unseen = 0;
    for (int lost = 0; lost < waits; ++lost) {
      bool seen = false;
      for (unsigned seed = 0; seed < 300 && !seen; ++seed) {
        Card card(2, Ahead::shuffled, seed);
        card.device.lost_stream = stream;
        card.device.lost_wait = lost;
        seen = exchange_on(card) != expected;
      }
      unseen += seen ? 0 : 1;
    }
    CHECK(unseen == own_waits[static_cast<std::size_t>(stream)]);
  }
}

}  // namespace ashlar
