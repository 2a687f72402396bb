// Trains an image classifier on Fashion-MNIST, sharded over ranks: alone one rank, with --ranks N
// threads, under mpiexec a process each. The last line is the share of test images named rightly.
//   fashion_mnist --model cnn --epochs 5
#include <algorithm>
#include <chrono>
#include <thread>

#include "ashlar/communicator.hpp"
#include "ashlar/run_main.hpp"
#include "fashion_mnist/flags.hpp"
#include "fashion_mnist/training.hpp"

namespace {

using ashlar::InvalidArgument;

struct Options {
  std::string model = "mlp", data = vision::kDebianFolder, help;
  vision::Recipe recipe;
  int ranks = 1, threads = 0;
  double at_least = 0;
};

Options parse_options(int argc, char** argv) {
  Options o;
  CLI::App app("Trains a classifier on Fashion-MNIST.", "fashion_mnist");
  app.option_defaults()->always_capture_default();
  app.add_option("--model", o.model, "mlp | cnn");
  app.add_option("--epochs", o.recipe.epochs, "passes over the 60,000 training images");
  app.add_option("--batch", o.recipe.batch, "samples per step, all ranks together");
  app.add_option("--lr", o.recipe.lr, "AdamW's highest learning rate");
  app.add_option("--ranks", o.ranks, "ranks as threads of this process");
  app.add_option("--threads", o.threads, "per rank; 0: the node's cores / ranks");
  app.add_option("--data", o.data, "folder of the four IDX files, plain or .gz");
  app.add_option("--seed", o.recipe.seed, "of weights and order");
  app.add_option("--at-least", o.at_least, "exit 1 below this test accuracy, in per cent");
  if (!vision::parse(app, argc, argv, o.help)) return o;
  using vision::require_flag;
  require_flag(o.model == "mlp" || o.model == "cnn", "--model", o.model, "mlp or cnn");
  require_flag(o.recipe.epochs >= 1 && o.recipe.epochs <= 10'000, "--epochs", o.recipe.epochs,
               "1 to 10000");
  require_flag(o.recipe.batch >= 1 && o.recipe.batch <= 10'000, "--batch", o.recipe.batch,
               "1 to 10000");
  require_flag(o.recipe.lr > 0 && o.recipe.lr <= 1, "--lr", o.recipe.lr, "above 0, at most 1");
  require_flag(o.ranks >= 1 && o.ranks <= 256, "--ranks", o.ranks, "1 to 256");
  require_flag(o.threads >= 0 && o.threads <= 1024, "--threads", o.threads, "0 to 1024");
  o.recipe.classifier = o.model == "mlp" ? vision::mlp : vision::cnn;
  return o;
}

void train(ashlar::Communicator& ranks, const vision::FashionMnist& data, const Options& o,
           double& accuracy) {
  vision::Recipe recipe = o.recipe;
  const int cores = static_cast<int>(std::thread::hardware_concurrency());
  recipe.train.threads = o.threads > 0 ? o.threads : std::max(1, cores / ranks.size());
  vision::Training training(ranks, data, recipe);
  const auto start = std::chrono::steady_clock::now();
  double last = 0;
  for (std::int64_t epoch = 1; epoch <= recipe.epochs; ++epoch) {
    double loss = 0;
    for (std::int64_t step = 0; step < training.steps_per_epoch(); ++step)
      loss += static_cast<double>(training.step());
    last = training.accuracy();
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    if (ranks.rank() != 0) continue;
    fmt::print("epoch {}/{}: loss {:.4f}, test accuracy {:.2f} %, {:.1f} s\n", epoch, recipe.epochs,
               loss / static_cast<double>(training.steps_per_epoch()), 100 * last, seconds.count());
    std::fflush(stdout);
  }
  if (ranks.rank() != 0) return;
  accuracy = 100 * last;
  fmt::print("test accuracy {:.1f} %\n", accuracy);
}

int run(int argc, char** argv) {
  ashlar::Communicator& world = ashlar::world();
  Options o;
  std::unique_ptr<vision::FashionMnist> data;
  ashlar::collectively(world, [&] {
    o = parse_options(argc, argv);
    if (!o.help.empty()) return;
    if (world.size() > 1 && o.ranks > 1)
      throw InvalidArgument("--ranks makes threads of one process: leave it out under mpiexec");
    data = std::make_unique<vision::FashionMnist>(o.data);
  });
  if (!o.help.empty()) {
    if (world.rank() == 0) fmt::print("{}", o.help);
    return 0;
  }
  double accuracy = 100;  // told by rank 0
  if (o.ranks == 1)
    train(world, *data, o, accuracy);
  else
    ashlar::launch_threads(o.ranks,
                           [&](ashlar::Communicator& ranks) { train(ranks, *data, o, accuracy); });
  return accuracy >= o.at_least ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  return ashlar::run_main("fashion_mnist", [&] { return run(argc, argv); });
}
