// What travels while libtorch computes, in the order of events; what stays where it is; leases.
#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "ashlar/interop/torch.hpp"
#include "comm/forwarding.hpp"

#undef CHECK  // glog's, which libtorch includes
#include <doctest/doctest.h>

namespace {

using ashlar::Communicator;
using Log = std::vector<std::string>;

/// Notes what is started, and what those split from it start.
class Logging final : public ashlar::detail::ForwardingCommunicator {
 public:
  Logging(Communicator& inner, Log& log) : ForwardingCommunicator(inner), log_(log) {}
  Logging(std::unique_ptr<Communicator> inner, Log& log)
      : ForwardingCommunicator(*inner), own_(std::move(inner)), log_(log) {}

  ashlar::Work all_gather(std::span<const ashlar::Transfer> flats, std::string_view label,
                          ashlar::StreamRef stream) override {
    log_.push_back("gather " + std::string(label));
    return ForwardingCommunicator::all_gather(flats, label, stream);
  }
  ashlar::Work reduce_scatter(std::span<const ashlar::Transfer> flats,
                              const ashlar::ReduceOptions& options, std::string_view label,
                              ashlar::StreamRef stream) override {
    log_.push_back("reduce " + std::string(label));
    return ForwardingCommunicator::reduce_scatter(flats, options, label, stream);
  }
  std::unique_ptr<Communicator> split(int color, int key) override {
    return std::make_unique<Logging>(ForwardingCommunicator::split(color, key), log_);
  }

 private:
  std::unique_ptr<Communicator> own_;
  Log& log_;
};

/// Three layers, with a batch norm between; says when it comes to each.
struct ChainImpl : torch::nn::Module {
  explicit ChainImpl(Log& events) : log(events) {
    a = register_module("a", torch::nn::Linear(8, 8));
    norm = register_module("norm", torch::nn::BatchNorm1d(8));
    b = register_module("b", torch::nn::Linear(8, 8));
    c = register_module("c", torch::nn::Linear(8, 1));
    const torch::NoGradGuard no_grad;
    for (const torch::Tensor& p : parameters()) p.fill_(0.1);
  }
  torch::Tensor forward(torch::Tensor x) {
    log.push_back("forward a");
    x = a(x);
    x.register_hook([this](const torch::Tensor&) { log.push_back("backward a"); });
    x = norm(x);
    log.push_back("forward b");
    x = b(x);
    log.push_back("forward c");
    return c(x).pow(2).sum();
  }
  Log& log;
  torch::nn::Linear a{nullptr}, b{nullptr}, c{nullptr};
  torch::nn::BatchNorm1d norm{nullptr};
};

std::ptrdiff_t place(const Log& log, const std::string& event) {
  const auto found = std::find(log.begin(), log.end(), event);
  INFO(event);
  REQUIRE(found != log.end());
  return found - log.begin();
}

}  // namespace

TEST_CASE("torch: gradients travel before backward is over, units before they are touched") {
  torch::set_num_threads(1);
  for (const int stage : {1, 2, 3}) {
    CAPTURE(stage);
    ashlar::launch_threads(2, [&](Communicator& threads) {
      Log log;
      Logging world(threads, log);
      const auto network = std::make_shared<ChainImpl>(log);
      auto sharded = ashlar::torch::shard(network, world, ashlar::AdamW{},
                                          {.stage = stage, .bucket_bytes = 1});
      for (int step = 0; step < 3; ++step) {
        log.clear();
        network->forward(torch::ones({4, 8}) * (world.rank() + 1)).backward();
        CHECK(place(log, "reduce c") < place(log, "backward a"));
        if (stage == 3) {
          const bool ahead = place(log, "gather b") < place(log, "forward b");
          CHECK(ahead == (step > 0));  // learnt in the first step
        }
        sharded.step();
        CHECK(place(log, "backward a") < place(log, "reduce a"));
      }
    });
  }
}

TEST_CASE("torch: buffers stay the module's own") {
  torch::set_num_threads(1);
  for (const int stage : {1, 3}) {
    CAPTURE(stage);
    ashlar::launch_threads(2, [&](Communicator& world) {
      Log log;
      const auto network = std::make_shared<ChainImpl>(log);
      const auto plain = std::make_shared<ChainImpl>(log);
      const void* const memory = network->norm->running_mean.data_ptr();
      auto sharded = ashlar::torch::shard(network, world, ashlar::AdamW{}, {.stage = stage});
      const torch::Tensor x = torch::ones({4, 8}) * (world.rank() + 1);  // the rank's own
      network->forward(x).backward();
      plain->forward(x);
      sharded.step();
      CHECK(network->norm->running_mean.data_ptr() == memory);
      CHECK(network->norm->running_mean.equal(plain->norm->running_mean));
      CHECK(network->norm->running_var.equal(plain->norm->running_var));
      CHECK(network->norm->num_batches_tracked.item<std::int64_t>() == 1);
      for (const ashlar::Parameter& p : sharded.optimizer().layout().parameters())
        CHECK(p.name.find("running") == std::string::npos);
    });
  }
}

TEST_CASE("torch: a lease keeps a unit in memory, whatever is computed meanwhile") {
  torch::set_num_threads(1);
  for (const int stage : {2, 3}) {
    CAPTURE(stage);
    ashlar::launch_threads(2, [&](Communicator& world) {
      Log log;
      const auto network = std::make_shared<ChainImpl>(log);
      auto sharded = ashlar::torch::shard(network, world, ashlar::AdamW{}, {.stage = stage});
      const auto& weight = network->b->weight;
      {
        const auto lease = sharded.gather("b");
        const auto again = sharded.gather("b");
        const float* const values = static_cast<const float*>(weight.storage().data());
        REQUIRE(values != nullptr);
        CHECK(std::count(values, values + 64, 0.1F) == 64);
        network->forward(torch::ones({4, 8})).backward();
        if (stage == 3) CHECK(network->c->weight.storage().data() == nullptr);
        CHECK(weight.storage().data() != nullptr);
      }
      CHECK((weight.storage().data() == nullptr) == (stage == 3));
      CHECK_THROWS_AS(static_cast<void>(sharded.gather("d")), ashlar::InvalidArgument);
      sharded.step();
    });
  }
}
