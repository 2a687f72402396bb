// The classifiers learn, on any number of ranks; the small one learns within its arena.
#include <doctest/doctest.h>

#include "ashlar/error.hpp"
#include "tiny_256kb/tiny.hpp"
#include "vision/synthetic.hpp"

namespace vision {
namespace {

struct Data {
  TemporaryFolder folder;
  Data() {
    write_split(folder, "train", 400);
    write_split(folder, "t10k", 150);
  }
  FashionMnist open() const { return FashionMnist(folder.path, folder.path / "cache"); }
};

alignas(ashlar::kAlignment) std::byte arena[tiny::kArenaBytes];

}  // namespace

TEST_CASE("vision: classifiers learn, and ranks share a batch") {
  const FashionMnist data = Data().open();
  for (const Classifier classifier : {mlp, cnn}) {
    std::vector<double> losses, accuracies;
    for (const int ranks : {1, 2}) {
      ashlar::launch_threads(ranks, [&](ashlar::Communicator& communicator) {
        Training training(communicator, data,
                          {.classifier = classifier, .epochs = 2, .batch = 16, .train = {}});
        float loss = 0;
        for (int step = 0; step < 50; ++step) loss = training.step();
        const double accuracy = training.accuracy();
        if (communicator.rank() != 0) return;
        losses.push_back(static_cast<double>(loss));
        accuracies.push_back(accuracy);
      });
    }
    CHECK(accuracies[0] > 0.9);
    CHECK(losses[1] == doctest::Approx(losses[0]).epsilon(1e-3));
    CHECK(accuracies[1] == doctest::Approx(accuracies[0]).epsilon(0.02));
  }
}

TEST_CASE("vision: a batch that does not divide is refused") {
  const FashionMnist data = Data().open();
  CHECK_THROWS_WITH_AS(ashlar::launch_threads(2,
                                              [&](ashlar::Communicator& communicator) {
                                                Training(communicator, data,
                                                         {.batch = 15, .train = {}});
                                              }),
                       "a batch of 15 does not divide among 2 ranks", ashlar::InvalidArgument);
}

TEST_CASE("vision: the small network learns within its arena, as the plan says") {
  const FashionMnist data = Data().open();
  const auto learn = [&] {
    tiny::Tiny tiny(arena, data, tiny::recipe());
    Training& training = tiny.training();
    CHECK(tiny.used() <= tiny::kArenaBytes);
    CHECK(training.train().planned().total <= tiny.used());
    CHECK(training.train().allocated_bytes() <= tiny.used());
    std::vector<float> losses;
    for (int step = 0; step < 300; ++step) losses.push_back(training.step());
    CHECK(training.accuracy() > 0.9);
    return losses;
  };
  CHECK(learn() == learn());
}

TEST_CASE("vision: the small network refuses what its arena cannot hold, with the size") {
  const FashionMnist data = Data().open();
  vision::Recipe recipe = tiny::recipe();
  recipe.batch = 64;
  const std::string text =
      message_of<ashlar::InvalidArgument>([&] { tiny::Tiny(arena, data, recipe); });
  CHECK(contains(text, "262144 bytes) cannot be met"));
  CHECK(contains(text, "the step needs at least"));
  const std::string small = message_of<ashlar::OutOfMemory>(
      [&] { tiny::Tiny(std::span(arena).first(100'032), data, tiny::recipe()); });
  CHECK(contains(small, "the step needs"));
}

}  // namespace vision
