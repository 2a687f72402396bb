#include "wrap_torch/options.hpp"

#include "fashion_mnist/dataset.hpp"
#include "fashion_mnist/flags.hpp"

namespace wrapped {
namespace {

void check(const Options& o) {
  using vision::require_flag;
  const bool tokens = o.model == "tiny" || o.model == "30m" || o.model == "gpt2";
  require_flag(o.images() || tokens, "--model", o.model, "cnn, transformer, tiny, 30m or gpt2");
  require_flag(tokens == o.synthetic, "--model", o.model,
               tokens ? "learns from --synthetic tokens" : "learns from images, not --synthetic");
  require_flag(o.batch >= 1 && o.batch <= 10'000, "--batch", o.batch, "1 to 10000");
  require_flag(o.seq >= 1 && o.seq <= 1 << 20, "--seq", o.seq, "1 to 1048576");
  require_flag(o.steps >= 0, "--steps", o.steps, "0 or more");
  require_flag(o.epochs >= 1 && o.epochs <= 10'000, "--epochs", o.epochs, "1 to 10000");
  require_flag(o.stage >= 0 && o.stage <= 3, "--stage", o.stage, "0 to 3");
  require_flag(o.precision == "fp32" || o.precision == "bf16", "--precision", o.precision,
               "fp32 or bf16");
  require_flag(o.lr > 0 && o.lr <= 1, "--lr", o.lr, "above 0, at most 1");
  require_flag(o.clip >= 0, "--clip", o.clip, "0 or more");
  require_flag(o.ranks >= 1 && o.ranks <= 256, "--ranks", o.ranks, "1 to 256");
  require_flag(o.threads >= 0 && o.threads <= 1024, "--threads", o.threads, "0 to 1024");
  require_flag(tokens || o.metrics.empty(), "--metrics", o.metrics.string(),
               "are of models of tokens");
}

}  // namespace

Options parse_options(int argc, char** argv) {
  Options o;
  o.data = vision::kDebianFolder;
  CLI::App app("Trains libtorch modules, sharded over ranks.", "wrap_torch");
  app.option_defaults()->always_capture_default();
  app.add_option("--model", o.model, "cnn | transformer: of images; tiny | 30m | gpt2: of tokens");
  app.add_flag("--synthetic", o.synthetic, "random tokens, for tiny, 30m and gpt2");
  app.add_option("--data", o.data, "folder of Fashion-MNIST's four files, plain or .gz");
  app.add_option("--batch", o.batch, "samples per rank");
  app.add_option("--seq", o.seq, "tokens per sample");
  app.add_option("--steps", o.steps, "0: of images --epochs, of tokens 10");
  app.add_option("--epochs", o.epochs, "passes over the 60,000 training images");
  app.add_option("--stage", o.stage, "ZeRO stage, 0 to 3");
  app.add_option("--precision", o.precision, "fp32 | bf16");
  CLI::Option* const lr = app.add_option("--lr", o.lr, "AdamW's; 1e-3 for images, else 3e-4");
  app.add_option("--clip", o.clip, "global norm of the gradients; 0: off");
  app.add_option("--ranks", o.ranks, "ranks as threads of this process");
  app.add_option("--threads", o.threads, "per rank; 0: the node's cores / ranks");
  app.add_option("--seed", o.seed, "of weights and samples");
  app.add_option("--at-least", o.at_least, "exit 1 below this test accuracy, in per cent");
  app.add_option("--metrics", o.metrics, "JSON lines, one per step and a summary");
  if (!vision::parse(app, argc, argv, o.help)) return o;
  if (lr->count() == 0) o.lr = o.images() ? 1e-3 : 3e-4;
  check(o);
  return o;
}

nlohmann::ordered_json to_json(const Options& o) {
  return {
      {"model", o.model},         {"synthetic", o.synthetic}, {"batch", o.batch}, {"seq", o.seq},
      {"steps", o.steps},         {"stage", o.stage},         {"lr", o.lr},       {"clip", o.clip},
      {"precision", o.precision}, {"threads", o.threads},     {"seed", o.seed}};
}

}  // namespace wrapped
