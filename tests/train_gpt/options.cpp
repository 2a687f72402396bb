#include "train_gpt/options.hpp"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <array>
#include <iterator>
#include <sstream>

#include "ashlar/error.hpp"
#include "base/nearest.hpp"
#include "support/temporary_folder.hpp"

using namespace train_gpt;
using ashlar::edit_distance;
using ashlar::suggestion;

namespace {

Options parse(std::vector<const char*> arguments) {
  arguments.insert(arguments.begin(), "train_gpt");
  return parse_options(static_cast<int>(arguments.size()), arguments.data());
}

Options parse_words(const std::string& text) {
  std::istringstream stream(text);
  const std::vector<std::string> words{std::istream_iterator<std::string>(stream), {}};
  std::vector<const char*> arguments;
  for (const std::string& word : words) arguments.push_back(word.c_str());
  return parse(arguments);
}

std::string refused(std::vector<const char*> arguments) {
  return message_of<ashlar::InvalidArgument>([&] { parse(std::move(arguments)); });
}

}  // namespace

TEST_CASE("options: defaults") {
  const Options o = parse({"--synthetic"});
  CHECK(o.model == "tiny");
  CHECK(o.stage == 3);
  CHECK(o.precision == "fp32");
  CHECK(o.reduce_dtype == "fp32");
  CHECK(o.schedule == "constant");
  CHECK(o.warmup == 0);
  CHECK(o.clip == 0);
  CHECK(o.dropout == 0);
  CHECK(o.accumulate == 1);
  CHECK(o.timeout == 60);
  CHECK(o.overlap);
  CHECK(o.reshard);
  CHECK(o.validation == 0);
}

TEST_CASE("options: every flag reaches its field") {
  const TemporaryFolder folder;
  const std::string config = folder.write("config.json", "{}").string();
  const Options o = parse_words(fmt::format(
      "--model {} --init in --export out --text a b --validation 0.25 "
      "--validate-every 7 --stage 1 --shard-group 2 --precision bf16 --reduce-dtype fp32 "
      "--batch 3 --seq 17 --accumulate 2 --reduce each --recompute budget "
      "--memory-budget 1GiB --steps 9 --lr 0 --warmup 4 --schedule cosine "
      "--weight-decay 0.2 --betas 0.8 0.99 --clip 1.5 --dropout 0.1 --freeze wte h.0.* "
      "--seed 11 --ranks 4 --device cpu --threads 2 --bucket 1.5MiB --prefetch 3 "
      "--overlap off --reshard off --timeout 2.5 --metrics m --save s "
      "--save-every 5 --sample 64 --plot p --allocation-trace a --order micro-batches "
      "--quiet",
      config));
  const nlohmann::ordered_json expected{{"model", config},
                                        {"init", "in"},
                                        {"export", "out"},
                                        {"text", {"a", "b"}},
                                        {"tokens", nlohmann::ordered_json::array()},
                                        {"synthetic", false},
                                        {"validation", 0.25},
                                        {"validate-every", 7},
                                        {"stage", 1},
                                        {"shard-group", 2},
                                        {"precision", "bf16"},
                                        {"reduce-dtype", "fp32"},
                                        {"batch", 3},
                                        {"seq", 17},
                                        {"accumulate", 2},
                                        {"reduce", "each"},
                                        {"order", "micro-batches"},
                                        {"recompute", "budget"},
                                        {"memory-budget", 1073741824},
                                        {"steps", 9},
                                        {"lr", 0.0},
                                        {"warmup", 4},
                                        {"schedule", "cosine"},
                                        {"weight-decay", 0.2},
                                        {"betas", {0.8, 0.99}},
                                        {"clip", 1.5},
                                        {"dropout", 0.1},
                                        {"freeze", {"wte", "h.0.*"}},
                                        {"seed", 11},
                                        {"ranks", 4},
                                        {"device", "cpu"},
                                        {"deterministic", "on"},
                                        {"threads", 2},
                                        {"bucket", 1572864},
                                        {"prefetch", 3},
                                        {"overlap", "off"},
                                        {"reshard", "off"},
                                        {"timeout", 2.5},
                                        {"metrics", "m"},
                                        {"save", "s"},
                                        {"save-every", 5},
                                        {"resume", ""},
                                        {"sample", 64},
                                        {"plot", "p"},
                                        {"allocation-trace", "a"},
                                        {"quiet", true}};
  CHECK(to_json(o).dump() == expected.dump());
  CHECK(parse({"--tokens", "x.bin", "y.bin", "--resume", "r"}).tokens.size() == 2);
  CHECK(parse({"--synthetic", "--betas=0.5,0.6"}).betas == std::vector<double>{0.5, 0.6});
  CHECK(parse({"--synthetic", "--resume", "r"}).resume == "r");
}

TEST_CASE("options: the last of repeated flags counts, lists gather") {
  const Options o = parse({"--text", "a", "--steps", "5", "--text", "b", "c", "--steps", "7",
                           "--betas", "0.1", "0.2", "--betas", "0.3", "0.4", "--quiet", "--quiet"});
  CHECK(o.steps == 7);
  CHECK(o.text == std::vector<std::filesystem::path>{"a", "b", "c"});
  CHECK(o.betas == std::vector<double>{0.3, 0.4});
  CHECK(o.quiet);
}

TEST_CASE("options: the defaults that follow other flags") {
  for (const char* stage : {"0", "1", "2", "3"})
    CHECK(parse({"--synthetic", "--stage", stage}).reduce == (stage[0] >= '2' ? "each" : "last"));
  CHECK(parse({"--synthetic", "--stage", "3", "--reduce", "last"}).reduce == "last");
  CHECK(parse({"--synthetic", "--precision", "bf16"}).reduce_dtype == "bf16");
  CHECK(parse({"--synthetic"}).recompute == "cheap");
  CHECK(parse({"--synthetic", "--memory-budget", "1GiB"}).recompute == "budget");
  CHECK(parse({"--text", "a", "--validate-every", "5"}).validation == 0.1);
  const TemporaryFolder folder;
  const std::string config = folder.write("config.json", "{}").string();
  const std::string init = folder.path.string();
  CHECK(parse({"--steps", "0", "--init", init.c_str(), "--export", "b"}).model == config);
  CHECK(parse({"--synthetic", "--init", init.c_str(), "--model", "gpt2"}).model == "gpt2");
  CHECK(contains(refused({"--synthetic", "--init", "nowhere"}),
                 "--init nowhere: there is no config.json"));
}

TEST_CASE("options: whole numbers are decimal and do not saturate") {
  CHECK(parse({"--synthetic", "--steps", "010"}).steps == 10);
  CHECK(parse({"--synthetic", "--seed", "9223372036854775807"}).seed == 9223372036854775807);
  CHECK(parse({"--synthetic", "--batch", "1", "--seq", "1", "--accumulate", "1099511627776"})
            .accumulate == std::int64_t{1} << 40);
  const nlohmann::ordered_json all = to_json(Options{});
  int flags = 0;
  for (const auto& [flag, value] : all.items()) {
    if (!value.is_number_integer() || flag == "memory-budget" || flag == "bucket") continue;
    ++flags;
    const std::string name = "--" + flag;
    for (const char* word : {"99999999999999999999", "-99999999999999999999", "0x10", "+1", "1e3",
                             "1.5", "7 ", "many", ""}) {
      const std::string message = refused({"--synthetic", name.c_str(), word});
      CAPTURE(message);
      CHECK(
          message.starts_with(fmt::format("{} {}: must be a whole number from 0 to ", name, word)));
    }
  }
  CHECK(flags == 14);
  for (const char* flag : {"--stage", "--ranks", "--threads", "--prefetch"})
    CHECK(contains(refused({"--synthetic", flag, "4294967297"}), "from 0 to 2147483647"));
}

TEST_CASE("options: bad input is one line that names the flag and the remedy") {
  struct Case {
    std::vector<const char*> arguments;
    std::vector<const char*> said;
  };
  const std::vector<Case> cases{
      {{"--synthetic", "--stge", "3"}, {"--stge: unknown flag", "did you mean --stage"}},
      {{"--synthetic", "--learning-rate=1"}, {"--learning-rate: unknown flag", "see --help"}},
      {{"--synthetic", "stray"}, {"'stray' belongs to no flag"}},
      {{"--synthetic", "--model", "smal"}, {"--model smal", "did you mean small"}},
      {{"--synthetic", "--model", "gpt2-larg"}, {"did you mean gpt2-large"}},
      {{"--synthetic", "--model", "bert"}, {"one of: tiny, small", "config.json"}},
      {{"--synthetic", "--model", "no/config.json"}, {"no such file"}},
      {{"--synthetic", "--precision", "fp23"}, {"--precision fp23", "did you mean fp32?"}},
      {{"--synthetic", "--reduce-dtype", "int8"}, {"--reduce-dtype int8", "one of: fp32, bf16"}},
      {{"--synthetic", "--reduce", "lst"}, {"--reduce lst", "did you mean last?"}},
      {{"--synthetic", "--recompute", "all"}, {"--recompute all", "none, cheap"}},
      {{"--synthetic", "--recompute", "budget"}, {"needs --memory-budget SIZE"}},
      {{"--synthetic", "--memory-budget", "1GB"}, {"--memory-budget 1GB"}},
      {{"--synthetic", "--memory-budget", "0"}, {"--memory-budget 0", "more than 0"}},
      {{"--synthetic", "--memory-budget", "1GiB", "--recompute", "none"},
       {"--memory-budget 1GiB", "--recompute budget"}},
      {{"--synthetic", "--schedule", "linear"}, {"--schedule linear", "one of: cosine, constant"}},
      {{"--synthetic", "--overlap", "yes"}, {"--overlap yes", "on, off"}},
      {{"--synthetic", "--reshard", "of"}, {"--reshard of", "on or off"}},
      {{"--synthetic", "--stage", "7"}, {"--stage 7", "0, 1, 2 or 3"}},
      {{"--synthetic", "--stage", "-1"}, {"--stage -1"}},
      {{"--synthetic", "--batch", "0"}, {"--batch 0: must be 1 or more"}},
      {{"--synthetic", "--batch", "9999999999999"}, {"--batch 9999999999999", "8388608 or less"}},
      {{"--synthetic", "--seq", "9999999999999"}, {"--seq 9999999999999", "or less"}},
      {{"--synthetic", "--batch", "many"}, {"--batch", "many"}},
      {{"--synthetic", "--batch", "1.5"}, {"--batch", "1.5"}},
      {{"--synthetic", "--batch"}, {"--batch"}},
      {{"--synthetic", "--seq", "0"}, {"--seq 0"}},
      {{"--synthetic", "--accumulate", "0"}, {"--accumulate 0"}},
      {{"--synthetic", "--accumulate", "9223372036854775807", "--batch", "2", "--seq", "8"},
       {"--accumulate 9223372036854775807", "68719476736 or less with --batch 2 and --seq 8"}},
      {{"--synthetic", "--steps", "-3"}, {"--steps -3"}},
      {{"--synthetic", "--warmup", "-1"}, {"--warmup -1"}},
      {{"--synthetic", "--lr", "-0.1"}, {"--lr -0.1"}},
      {{"--synthetic", "--lr", "nan"}, {"--lr nan"}},
      {{"--synthetic", "--clip", "-1"}, {"--clip -1"}},
      {{"--synthetic", "--weight-decay", "inf"}, {"--weight-decay inf"}},
      {{"--synthetic", "--betas", "0.9", "1"}, {"--betas 0.9 1", "[0, 1)"}},
      {{"--synthetic", "--betas", "0.9"}, {"--betas"}},
      {{"--synthetic", "--dropout", "1"}, {"--dropout 1", "[0, 1)"}},
      {{"--synthetic", "--ranks", "0"}, {"--ranks 0"}},
      {{"--synthetic", "--threads", "-2"}, {"--threads -2"}},
      {{"--synthetic", "--deterministic", "off"}, {"--deterministic off", "--device cuda"}},
      {{"--synthetic", "--deterministic", "maybe"}, {"--deterministic maybe"}},
      {{"--synthetic", "--device", "gpu"}, {"--device gpu", "there is no device 'gpu'", "cuda:0"}},
      {{"--synthetic", "--device", "cuda:x"}, {"--device cuda:x", "there is no device 'cuda:x'"}},
      {{"--synthetic", "--prefetch", "-1"}, {"--prefetch -1"}},
      {{"--synthetic", "--bucket", "5MB"}, {"--bucket 5MB", "MiB"}},
      {{"--synthetic", "--timeout", "0"}, {"--timeout 0", "0.001 to"}},
      {{"--synthetic", "--seed", "-1"}, {"--seed"}},
      {{"--synthetic", "--save-every", "2"}, {"--save-every 2", "needs --save"}},
      {{"--synthetic", "--sample", "-1"}, {"--sample -1"}},
      {{"--synthetic", "--resume", "r", "--init", "i", "--model", "tiny"},
       {"--resume r", "--init"}},
      {{}, {"nothing to train on", "--text", "--tokens", "--synthetic"}},
      {{"--text", "a", "--tokens", "b"}, {"--text, --tokens: give only one"}},
      {{"--tokens", "a", "--synthetic"}, {"--tokens, --synthetic: give only one"}},
      {{"--synthetic", "--validation", "0.1"}, {"--validation 0.1", "needs --text"}},
      {{"--synthetic", "--validate-every", "2"}, {"--validate-every 2", "needs --text"}},
      {{"--text", "a", "--validation", "1"}, {"--validation 1"}},
      {{"--text", "a", "--validate-every", "-1"}, {"--validate-every -1"}},
      {{"--text", "a", "--validation", "0", "--validate-every", "5"}, {"--validate-every 5"}},
  };
  for (const Case& wrong : cases) {
    const std::string message = refused(wrong.arguments);
    CAPTURE(message);
    for (const char* part : wrong.said) {
      CAPTURE(part);
      CHECK(contains(message, part));
    }
    CHECK(message != "nothing thrown");
    CHECK(!contains(message, "\n"));
  }
}

TEST_CASE("options: --help names every flag, and defaults") {
  const std::string help = parse({"--help"}).help;
  const nlohmann::ordered_json flags = to_json(Options{});
  for (const auto& [flag, value] : flags.items()) CHECK(contains(help, "--" + flag));
  for (const char* said : {"--lr FLOAT=0.0003", "--steps INT=100", "--weight-decay FLOAT=0.1",
                           "--bucket TEXT=25MiB", "[0.9,0.95]", "--model TEXT=tiny"})
    CHECK(contains(help, said));
}

TEST_CASE("options: ranks must agree on all but what rank 0 alone reads") {
  const auto entries = [](std::vector<const char*> more) {
    more.insert(more.begin(), "--synthetic");
    return agreement_entries(parse(std::move(more)));
  };
  const auto base = entries({});
  CHECK(entries({"--metrics", "m", "--plot", "p", "--allocation-trace", "a", "--quiet"}) == base);
  CHECK(entries({"--batch", "9"}) != base);
  CHECK(entries({"--seed", "9"}) != base);
  CHECK(entries({"--lr", "0.00030000000000000003"}) != base);
  CHECK(entries({"--freeze", "a"}) != base);
  CHECK(base.size() == to_json(Options{}).size() - 4 + 1);  // and whether it is a run at all
}

TEST_CASE("options: edit distance") {
  CHECK(edit_distance("", "abc") == 3);
  CHECK(edit_distance("stage", "stage") == 0);
  CHECK(edit_distance("stage", "satge") == 1);
  CHECK(edit_distance("kitten", "sitting") == 3);
  CHECK(edit_distance("sitting", "kitten") == 3);
}
