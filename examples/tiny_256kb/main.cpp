// Trains a CNN on Fashion-MNIST in 256 KiB: every byte of its step lies in one static array, and
// nothing is allocated once the step is planned. The data set is mapped read-only.
#include <chrono>

#include "ashlar/run_main.hpp"
#include "fashion_mnist/flags.hpp"
#include "tiny_256kb/tiny.hpp"

namespace {

alignas(ashlar::kAlignment) std::byte arena[tiny::kArenaBytes];

void print_plan(tiny::Tiny& tiny) {
  const ashlar::MemoryUse plan = tiny.training().train().planned();
  fmt::print("{:<24}{:>10}\n", "at the peak", "bytes");
  for (std::size_t c = 0; c < ashlar::kCategories; ++c)
    if (plan.at_peak[c] > 0)
      fmt::print("{:<24}{:>10}\n", name_of(static_cast<ashlar::Category>(c)), plan.at_peak[c]);
  fmt::print("{:<24}{:>10}\n{:<24}{:>10}\n", "padding", plan.padding, "fragmentation",
             plan.fragmentation);
  fmt::print("{:<24}{:>10}\n{:<24}{:>10}\n", "planned", plan.total, "arena", tiny::kArenaBytes);
  std::fflush(stdout);
}

int run(int argc, char** argv) {
  vision::Recipe recipe = tiny::recipe();
  std::string data = vision::kDebianFolder, help;
  double at_least = 0;
  CLI::App app("Trains a CNN on Fashion-MNIST in 256 KiB.", "tiny_256kb");
  app.option_defaults()->always_capture_default();
  app.add_option("--epochs", recipe.epochs, "passes over the 60,000 training images");
  app.add_option("--batch", recipe.batch, "samples per step");
  app.add_option("--lr", recipe.lr, "AdamW's highest learning rate");
  app.add_option("--data", data, "folder of the four IDX files, plain or .gz");
  app.add_option("--seed", recipe.seed, "of weights and order");
  app.add_option("--at-least", at_least, "exit 1 below this test accuracy, in per cent");
  if (!vision::parse(app, argc, argv, help)) {
    fmt::print("{}", help);
    return 0;
  }
  vision::require_flag(recipe.epochs >= 1 && recipe.epochs <= 10'000, "--epochs", recipe.epochs,
                       "1 to 10000");
  vision::require_flag(recipe.batch >= 1 && recipe.batch <= 10'000, "--batch", recipe.batch,
                       "1 to 10000");
  vision::require_flag(recipe.lr > 0 && recipe.lr <= 1, "--lr", recipe.lr, "above 0, at most 1");

  const vision::FashionMnist images(data);
  tiny::Tiny tiny(arena, images, recipe);
  print_plan(tiny);
  vision::Training& training = tiny.training();
  const auto start = std::chrono::steady_clock::now();
  double accuracy = 0;
  for (std::int64_t epoch = 1; epoch <= recipe.epochs; ++epoch) {
    double loss = 0;
    for (std::int64_t step = 0; step < training.steps_per_epoch(); ++step)
      loss += static_cast<double>(training.step());
    accuracy = 100 * training.accuracy();
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    fmt::print("epoch {}/{}: loss {:.4f}, test accuracy {:.2f} %, {:.1f} s\n", epoch, recipe.epochs,
               loss / static_cast<double>(training.steps_per_epoch()), accuracy, seconds.count());
    std::fflush(stdout);
  }
  fmt::print("test accuracy {:.1f} %\n", accuracy);
  return accuracy >= at_least ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  return ashlar::run_main("tiny_256kb", [&] { return run(argc, argv); });
}
