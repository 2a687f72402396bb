// What cannot be used is refused with exit code 2 and one line that names it and the remedy, said
// by one rank only, and nothing is lost.
#include <doctest/doctest.h>

#include <algorithm>

#include "ashlar/device.hpp"
#include "cli/desk.hpp"

namespace cli {
namespace {

void check_refused(const Finished& finished, const std::string& named, const std::string& remedy) {
  CAPTURE(finished.err);
  CHECK_FALSE(finished.timed_out);
  CHECK(finished.code == 2);
  CHECK(std::ranges::count(finished.err, '\n') == 1);
  CHECK(finished.err.starts_with("train_gpt: "));
  CHECK(contains(finished.err, named));
  CHECK(contains(finished.err, remedy));
}

/// Alone, as threads and under the launcher.
void check_refused(const std::string& line, const std::string& named, const std::string& remedy) {
  CAPTURE(line);
  check_refused(run(line), named, remedy);
  check_refused(run(line + " --ranks 3"), named, remedy);
  if (has_mpi()) check_refused(run(mpiexec(2) + line), named, remedy);
}

void flip_byte(const std::string& path, std::int64_t at) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(at);
  const char byte = static_cast<char>(file.get() ^ 0x10);
  file.seekp(at);
  file.put(byte);
}

/// `good` with one key changed (or, by a discarded value, without it) names file and key.
void check_changed(const Desk& desk, Json good, const char* key, const Json& value,
                   const std::string& named) {
  good[key] = value;
  if (value.is_discarded()) good.erase(key);
  desk.folder.write("bad.json", good.dump());
  check_refused(desk.base() + "--steps 1 --model " + desk.path("bad.json"), "bad.json", named);
}

}  // namespace

TEST_CASE("bad input: flags") {
  const Desk desk;
  check_refused(desk.base() + "--stpes 5", "--stpes", "--steps");
  check_refused(desk.base() + "--model tinny", "tinny", "tiny");
  check_refused(desk.base() + "--stage 7", "--stage 7", "0, 1, 2 or 3");
  check_refused(desk.base() + "--batch 0", "--batch 0", "1 or more");
  check_refused(desk.base() + "--batch two", "--batch", "two");
  check_refused(desk.base() + "--seed 99999999999999999999", "--seed 9999", "9223372036854775807");
  check_refused(desk.base() + "--accumulate 9223372036854775807", "--accumulate 9", "or less");
  check_refused(desk.base() + "--seq 33", "33", "32 positions");
  check_refused(desk.base() + "--freeze h.7.", "--freeze h.7.", "h.1.ln_1.weight and ln_f.bias");
  check_refused(desk.base() + "--freeze *", "nothing is trainable", "leave at least one");
  check_refused(desk.base() + "--freeze * --accumulate 2 --stage 0", "nothing is trainable", "");
  check_refused(desk.base() + "--batch 9999999999999", "--batch 9999999999999", "or less");
  check_refused(desk.base() + "--threads 100000", "--threads 100000", "1024 or less");
  CHECK(run(desk.base() + "--ranks 100000").err ==
        "train_gpt: --ranks 100000: must be 1024 or less\n");
  check_refused(desk.base() + "--bucket 3MB", "--bucket 3MB", "MiB");
  check_refused(desk.base() + "--device gpu", "--device gpu: there is no device", "cuda:0");
}

TEST_CASE("bad input: a GPU where there is none") {
  if (ashlar::device_count(ashlar::DeviceType::cuda) > 0) return;
  const Desk desk;
  for (const char* device : {"cuda", "cuda:1"})
    check_refused(desk.base() + "--device " + device,
                  fmt::format("--device {}: no CUDA device was found: ", device), "--device cpu");
  CHECK(run(desk.base() + "--steps 1 --device cpu").code == 0);
}

TEST_CASE("bad input: text") {
  const Desk desk;
  const std::string base =
      fmt::format("{} --model {} --seq 16 --quiet --text ", kTrainGpt, desk.path("config.json"));
  desk.folder.write("short.txt", "hello");
  desk.folder.write("empty.txt", "");
  std::filesystem::create_directory(desk.path("folder"));
  check_refused(base + desk.path("missing.txt"), "missing.txt", "No such file");
  check_refused(base + desk.path("short.txt"), "short.txt", "shorter --seq");
  check_refused(base + desk.path("empty.txt"), "empty.txt", "empty");
  check_refused(base + desk.path("folder"), "folder", "no text");
  std::filesystem::create_symlink("loop.txt", desk.path("loop.txt"));  // root cannot read it either
  check_refused(base + desk.path("loop.txt"), "loop.txt", "symbolic links");
  if (::geteuid() != 0) {
    desk.folder.write("secret.txt", "text");
    std::filesystem::permissions(desk.path("secret.txt"), std::filesystem::perms::none);
    check_refused(base + desk.path("secret.txt"), "secret.txt", "denied");
  }
}

TEST_CASE("bad input: a config.json that lies") {
  const Desk desk;
  const Json good = Json::parse(std::ifstream(desk.path("config.json")));
  const auto check = [&](const char* key, const Json& value, const std::string& named) {
    check_changed(desk, good, key, value, named);
  };
  check("n_head", 3, "n_head");
  check("n_layer", -1, "n_layer");
  check("n_layer", "two", "n_layer");
  check("n_layer", 1 << 30, "n_layer");
  check("n_embd", 1 << 30, "n_embd");
  check("n_inner", 0, "n_inner");
  check("n_positions", 1'000'000'000'000'000, "'n_positions' is 1000000000000000");
  check("n_positions", 1e15, "from 1 to 2147483648");
  check("vocab_size", 1.5, "vocab_size");
  check("model_type", "bert", "supported: gpt2, llama");
  check("activation_function", "relu", "activation_function");
  check("tie_word_embeddings", "yes", "tie_word_embeddings");
  desk.folder.write("bad.json", "{");
  check_refused(desk.base() + "--model " + desk.path("bad.json"), "bad.json", "JSON");
  desk.folder.write("bad.json", "[1]");
  check_refused(desk.base() + "--model " + desk.path("bad.json"), "bad.json", "JSON");
  check_refused(desk.base() + "--model " + desk.path("none.json"), "none.json", "no such file");
  const std::string tied = std::string(ASHLAR_TEST_DIR) + "/oracle/data/gpt2_tied";
  check_refused(desk.base() + "--steps 0 --init " + tied, "wpe.weight", "config.json");
}

TEST_CASE("bad input: a Llama config.json that lies or wants what is not there") {
  const Desk desk;
  const std::string folder = std::string(ASHLAR_TEST_DIR) + "/oracle/data/llama_untied";
  Json good = Json::parse(std::ifstream(folder + "/config.json"));
  good["vocab_size"] = 256;
  const Json none(Json::value_t::discarded);
  const auto check = [&](const char* key, const Json& value, const std::string& named) {
    check_changed(desk, good, key, value, named);
  };
  for (const char* key : {"hidden_size", "intermediate_size", "num_hidden_layers",
                          "num_attention_heads", "max_position_embeddings", "vocab_size"}) {
    check(key, none, fmt::format("'{}' is missing; a Llama", key));
    check(key, 0, fmt::format("'{}' is 0", key));
  }
  check("num_key_value_heads", 3, "'num_key_value_heads' 3");
  check("head_dim", 7, "'head_dim' 7 is odd");
  check("num_hidden_layers", 1 << 20, "'num_hidden_layers'");
  check("num_attention_heads", 1 << 30, "'num_attention_heads' 1073741824 of 'head_dim' 12");
  Json large = good;
  large["intermediate_size"] = 1 << 30;
  check_changed(desk, large, "hidden_size", 1 << 20, "'intermediate_size' 1073741824");
  check("eos_token_id", {3, 256}, "'eos_token_id' is [3,256]");
  check("rms_norm_eps", 0, "'rms_norm_eps' is 0");
  check("hidden_act", "gelu", "'hidden_act' is \"gelu\"");
  check("attention_bias", true, "'attention_bias' is true");
  check("mlp_bias", true, "'mlp_bias' is true");
  check("tie_word_embeddings", "no", "'tie_word_embeddings'");
  check("rope_scaling", Json{{"type", "linear"}, {"factor", 2.0}}, "'rope_scaling.type'");
  check("rope_scaling", 2, "'rope_scaling' is 2");
  check("rope_parameters", Json{{"rope_type", "llama3"}}, "'rope_parameters.rope_type'");
  check("rope_parameters", Json{{"rope_theta", -1}}, "'rope_parameters.rope_theta' is -1");
  check("architectures", {"LlamaForSequenceClassification"}, "'architectures'");
  check_refused(desk.base() + "--steps 0 --init " + folder, "wpe.weight", "config.json");
  desk.folder.write("good.json", good.dump());
  check_refused(desk.base() + "--freeze h.0. --model " + desk.path("good.json"), "--freeze h.0.",
                "model.layers.");
}

TEST_CASE("bad input: checkpoints that are corrupt, truncated, foreign or of another run") {
  const Desk desk;
  const std::string good = desk.path("good"), bad = desk.path("bad");
  REQUIRE(run(desk.base() + "--steps 2 --ranks 2 --save " + good).code == 0);
  const std::string resume = desk.base() + "--steps 4 --resume ";
  const std::string shard = bad + "/shards-1/rank-1.safetensors";
  const auto fresh = [&] {
    std::filesystem::remove_all(bad);
    std::filesystem::copy(good, bad, std::filesystem::copy_options::recursive);
  };
  const auto bytes =
      static_cast<std::int64_t>(std::filesystem::file_size(good + "/shards-1/rank-1.safetensors"));
  fresh();
  flip_byte(shard, bytes - 100);
  check_refused(resume + bad, "tensor '", "rank-1.safetensors: altered");
  fresh();
  std::filesystem::resize_file(shard, static_cast<std::uintmax_t>(bytes / 2));
  check_refused(resume + bad, "rank-1.safetensors: truncated", "instead of");
  fresh();
  std::filesystem::remove(shard);
  check_refused(resume + bad, "rank-1.safetensors", "No such file");
  fresh();
  flip_byte(bad + "/manifest.json", 300);
  check_refused(resume + bad, "manifest.json", "");
  check_refused(resume + desk.path("nowhere"), "nowhere", "no checkpoint");
  check_refused(resume + std::string(ASHLAR_TEST_DIR) + "/oracle/data/gpt2_tied", "gpt2_tied",
                "manifest.json");
  check_refused(resume + good + " --model tiny", "h.2.ln_1.weight", "resume with the model");
  check_refused(resume + good + " --freeze wpe", "wpe.weight", "frozen");
  check_refused(resume + good + " --seed 2", "--seed 1", "good");
  CHECK(run(resume + good).code == 0);
}

TEST_CASE("bad input: ranks started with different flags") {
  if (!has_mpi()) return;
  const Desk desk;
  const auto start = [&](const std::string& first, const std::string& second) {
    return run(
        fmt::format("{} {} {} : -n 1 {} {}", mpiexec(1), desk.base(), first, desk.base(), second));
  };
  check_refused(start("--lr 0.1", "--lr 0.2"), "rank 1 has '--lr 0.2'", "same flags");
  check_refused(start("", "--stage 2"), "'--stage 2'", "same flags");
  check_refused(start("", "--stage 7"), "--stage 7", "0, 1, 2 or 3");
  check_refused(start("", "--ranks 2"), "--ranks", "mpiexec");
  check_refused(start("--ranks 2", ""), "--ranks", "mpiexec");
  check_refused(start("", "--help"), "ranks disagree", "same flags");
  check_refused(start("", "--text /none"), "/none", "");
}

TEST_CASE("bad input: places that cannot be written are refused before the first step") {
  const Desk desk;
  desk.folder.write("file", "");
  for (const std::string flag : {"--metrics", "--plot", "--save", "--export"}) {
    const std::string place = desk.path("file") + "/below";
    check_refused(fmt::format("{} --steps 1000000 {} {}", desk.base(), flag, place), place, flag);
  }
  check_refused(desk.base() + "--steps 100 --metrics /dev/full", "/dev/full", "room");
  const std::string folder = desk.folder.path.string();
  check_refused(desk.base() + "--steps 1000000 --plot " + folder, "--plot " + folder, "a folder");
}

TEST_CASE("bad input: a plot that cannot be written after all costs no report") {
  const Desk desk;
  const Finished finished =
      run(fmt::format("{} --model {} --synthetic --seq 8 --batch 1 --steps 1 --plot /dev/full",
                      kTrainGpt, desk.path("config.json")));
  CHECK(finished.code == 2);
  CHECK(contains(finished.err, "--plot /dev/full: cannot be written"));
  CHECK(contains(finished.out, "sent per step"));
}

TEST_CASE("bad input: a disk that is full while saving leaves the older checkpoint valid") {
  const Desk desk;
  const std::string saved = desk.path("saved");
  REQUIRE(run(desk.base() + "--steps 2 --ranks 2 --save " + saved).code == 0);
  const std::string manifest = slurp(saved + "/manifest.json");
  const std::string line = desk.base() + "--steps 4 --save " + saved + " --resume " + saved;
  for (const std::string ranks : {"1", "2"}) {
    // A rank's file takes 150 KB or more; what ends there is told as a full disk is.
    Process process(
        {"bash", "-c", "trap '' XFSZ; ulimit -f 100; exec " + line + " --ranks " + ranks});
    check_refused(process.wait(), "cannot write " + saved + "/shards-2/rank-0.safetensors",
                  "free some space");
    CHECK(slurp(saved + "/manifest.json") == manifest);
    CHECK_FALSE(std::filesystem::exists(saved + "/shards-2"));
  }
  const Finished resumed = run(desk.base() + "--steps 3 --resume " + saved);
  CHECK(resumed.code == 0);
  CHECK(resumed.err == "");
}

TEST_CASE("bad input: a loss that is not finite stops the run and names the first parameter") {
  const Desk desk;
  check_refused(desk.base() + "--steps 10 --lr 1e30", "step 2: loss nan", "wpe.weight");
}

TEST_CASE("bad input: too large a model names what would hold the memory") {
  const Desk desk;
  desk.folder.write("huge.json", R"({"n_layer": 48, "n_head": 128, "n_embd": 16384,
                                     "n_positions": 64, "vocab_size": 256})");
  const std::string huge =
      kTrainGpt + " --model " + desk.path("huge.json") + " --synthetic --batch 1 --seq 64 --quiet";
  const std::string holders = "(optimizer_state 576.06 GiB, parameter 288.03 GiB";
  const auto check_huge = [&](const std::string& command) {
    const Finished refused = run(command);
    check_refused(refused, "out of memory", "use more ranks");
    CHECK(contains(refused.err, holders));
  };
  check_huge(huge + " --ranks 2");
  if (has_mpi()) check_huge(mpiexec(2) + huge);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // they map terabytes
  const std::string line = kTrainGpt + " --model gpt2-xl --synthetic --batch 1 --seq 64 --quiet";
  const Finished finished =
      Process({"bash", "-c", "ulimit -v 4000000; exec " + line + " --ranks 2"}).wait();
  CAPTURE(finished.err);
  check_refused(finished, "out of memory", "use more ranks");
  CHECK(contains(finished.err, "optimizer_state 5.80 GiB, parameter 2.90 GiB"));
#endif
}

}  // namespace cli
