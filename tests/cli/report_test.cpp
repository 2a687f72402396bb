// ashlar report as a user runs it, beside what train_gpt counts.
#include <doctest/doctest.h>

#include <chrono>

#include "cli/desk.hpp"
#include "cli/program.hpp"

namespace cli {
namespace {

const std::string kReport = std::string(ASHLAR_PROGRAM) + " report ";

/// The step's flags on the desk's model.
std::string step(const Desk& desk) {
  return "--model " + desk.path("config.json") + " --seq 16 --batch 2 --threads 1 ";
}

Json report(const std::string& flags) {
  const Finished done = run(kReport + flags + " --json");
  REQUIRE_MESSAGE(done.code == 0, done.err);
  CHECK(done.err == "");
  return Json::parse(done.out);
}

void check_equal(const Desk& desk, const std::string& flags) {
  CAPTURE(flags);
  const Json planned = report(step(desk) + flags);
  const Finished trained =
      run(desk.base() + "--steps 2 " + flags + " --metrics " + desk.path("m.jsonl"));
  REQUIRE_MESSAGE(trained.code == 0, trained.err);
  const auto lines = desk.metrics("m.jsonl");
  REQUIRE(lines.size() == 3);
  const Json& summary = lines[2]["summary"];
  for (const char* key : {"parameters", "ranks", "stage", "precision", "model_state_bytes"})
    CHECK(planned[key] == summary[key]);
  CHECK(planned["peak_bytes"] == summary["planned_peak_bytes"]);
  for (const Json& line : {lines[0], lines[1]}) {
    CHECK(planned["peak_bytes"] == line["peak_bytes"]);
    CHECK(planned["at_peak"] == line["at_peak"]);
    CHECK(planned["sent_bytes"] == line["sent_bytes"]);
  }
}

}  // namespace

TEST_CASE("report: what train_gpt plans and measures, worlds 1 to 4, every stage, fp32 and bf16") {
  const Desk desk;
  for (const int ranks : {1, 2, 3, 4})
    for (const int stage : {0, 1, 2, 3})
      for (const char* precision : {"fp32", "bf16"})
        check_equal(desk,
                    fmt::format("--ranks {} --stage {} --precision {}", ranks, stage, precision));
}

TEST_CASE("report: train_gpt's other flags count alike") {
  const Desk desk;
  for (const char* flags :
       {"--ranks 2 --accumulate 3 --order layers", "--ranks 3 --accumulate 2 --stage 2 --clip 1",
        "--ranks 2 --accumulate 2 --reduce last --reduce-dtype bf16",
        "--ranks 2 --recompute per-unit --reshard off --prefetch 3",
        "--ranks 4 --overlap off --bucket 1KiB --dropout 0.1 --freeze wte ln",
        "--ranks 4 --shard-group 2 --precision bf16", "--ranks 3 --shard-group 1 --stage 2",
        "--ranks 4 --shard-group 2 --stage 1 --accumulate 2 --reduce each",
        "--ranks 2 --memory-budget 900KiB", "--ranks 2 --validation 0.2 --recompute none"})
    check_equal(desk, flags);
}

TEST_CASE("report: all stages are an array, with --params by formula alone") {
  const Json all = report("--params 7.5e9 --ranks 64 --all-stages --precision bf16");
  REQUIRE(all.size() == 4);
  const std::int64_t p = 7'500'000'000;
  CHECK(all[0]["model_state_bytes"]["optimizer_state"] == 12 * p);
  CHECK(all[1]["model_state_bytes"]["optimizer_state"] == 12 * p / 64);
  CHECK(all[2]["model_state_bytes"]["gradient"] == 2 * p / 64);
  CHECK(all[3]["model_state_bytes"]["parameter"] == 2 * p / 64);
  const Json traced = report("--model gpt2 --ranks 64 --all-stages --seq 64 --batch 1");
  REQUIRE(traced.size() == 4);
  for (int stage = 0; stage < 4; ++stage) CHECK(traced[stage]["stage"] == stage);
  CHECK(traced[3]["peak_bytes"]["total"] < traced[0]["peak_bytes"]["total"]);
  CHECK(report("--model gpt2 --ranks 64 --stage 1 --seq 64 --batch 1") == traced[1]);
}

TEST_CASE("report: a trillion parameters need no memory here") {
  const Json json =
      report("--model megatron-1t --ranks 1024 --precision bf16 --batch 1 --seq 2048");
  CHECK(json["parameters"] == 1008038758400);
  const double states = json["model_state_bytes"]["optimizer_state"];
  CHECK(states == doctest::Approx(12 * 1008038758400 / 1024).epsilon(1e-5));  // padding
}

TEST_CASE("report: a verdict, its margin and the largest batch; exit 1 when it does not fit") {
  const Desk desk;
  const Json plain = report(step(desk) + "--ranks 2");
  const std::int64_t need = plain["peak_bytes"]["total"];
  const Json fits =
      report(step(desk) + fmt::format("--ranks 2 --device-memory {} --reserve 100", need + 107));
  CHECK(fits["device"]["fits"] == true);
  CHECK(fits["device"]["margin_bytes"] == 7);
  CHECK(fits["device"]["largest_batch"] == 2);
  const Finished done =
      run(kReport + step(desk) + fmt::format("--ranks 2 --json --device-memory {}", need - 1));
  CHECK(done.code == 1);
  CHECK(Json::parse(done.out)["device"]["margin_bytes"] == -1);
  CHECK(Json::parse(done.out)["device"]["largest_batch"] == 1);
}

namespace {

/// A line of the page's script: "const NAME = JSON;".
Json constant(const std::string& page, const std::string& name) {
  const std::size_t begin = page.find("const " + name + " = ") + name.size() + 9;
  const std::size_t end = std::min(page.find(";\n", begin), page.find(";</script>", begin));
  return Json::parse(page.substr(begin, end - begin));
}

/// Each other stage's timeline rises to the peak that its report states, and states stay.
void check_timelines(const std::string& page, const Desk& desk) {
  const Json timelines = constant(page, "timelines");
  CHECK(timelines.size() == 3);
  for (const auto& [stage, timeline] : timelines.items()) {
    const Json alone = report(step(desk) + "--ranks 2 --stage " + stage);
    std::int64_t held = 0, peak = 0;
    for (const Json& change : timeline["ops"]) {
      held += change[0].get<std::int64_t>();
      peak = std::max(peak, held);
      CHECK(change[2].get<std::size_t>() < timeline["names"].size());
    }
    CAPTURE(stage);
    std::int64_t at_peak = 0;  // without padding, which is nobody's
    for (const auto& [category, bytes] : alone["at_peak"].items())
      if (category != "padding" && category != "fragmentation")
        at_peak += bytes.get<std::int64_t>();
    CHECK(peak == at_peak);
    CHECK(held > 0);
  }
}

}  // namespace

TEST_CASE("report: files: a page, a snapshot, a difference") {
  const Desk desk;
  const Finished done = run(kReport + step(desk) + "--ranks 2 --html " + desk.path("r.html") +
                            " --snapshot " + desk.path("r.pickle"));
  REQUIRE_MESSAGE(done.code == 0, done.err);
  CHECK(done.out.find("gather buffers") != std::string::npos);
  const std::string page = slurp(desk.path("r.html"));
  CHECK(page.find("id=\"stage\"") != std::string::npos);
  CHECK(page.find("h.1/parameter") != std::string::npos);
  check_timelines(page, desk);
  CHECK(slurp(desk.path("r.pickle")).find("h.1/parameter") != std::string::npos);
  spill(desk.path("a.json"), report(step(desk) + "--ranks 2").dump());
  spill(desk.path("b.json"), report(step(desk) + "--ranks 3").dump());
  const Finished diff = run(kReport + "--diff " + desk.path("a.json") + " " + desk.path("b.json"));
  CHECK(diff.code == 0);
  CHECK(diff.out.find("model_state_bytes/optimizer_state") != std::string::npos);
  CHECK(diff.out.find("parameters") == std::string::npos);
  const Json a = Json::parse(slurp(desk.path("a.json")));
  const Json b = Json::parse(slurp(desk.path("b.json")));
  const Json changes = report("--diff " + desk.path("a.json") + " " + desk.path("b.json"));
  CHECK(changes["peak_bytes/total"]["before"] == a["peak_bytes"]["total"]);
  CHECK(changes["peak_bytes/total"]["after"] == b["peak_bytes"]["total"]);
  CHECK(changes["ranks"]["change"] == 1);
  CHECK(!changes.contains("parameters"));
  CHECK(report("--diff " + desk.path("a.json") + " " + desk.path("a.json")).empty());
}

TEST_CASE("report: no flag is taken and then ignored") {
  const Desk desk;
  spill(desk.path("a.json"), report(step(desk)).dump());
  const std::string diff = "--diff " + desk.path("a.json") + " " + desk.path("a.json");
  const std::string gpt2 = "--model gpt2 --seq 64 --compat deepspeed ";
  const std::vector<std::pair<std::string, std::string>> cases{
      {diff + " --markdown", "--markdown"},
      {diff + " --model gpt2", "--model"},
      {gpt2 + "--html " + desk.path("r.html"), "--html"},
      {gpt2 + "--by op", "--by"},
      {gpt2 + "--device-memory 1GiB", "--device-memory"},
      {gpt2 + "--all-stages", "--all-stages"},
      {gpt2 + "--measure", "--measure"},
      {"--params 1e9 --batch 3", "--batch"},
      {"--params 1e9 --recompute none", "--recompute"},
      {"--params 1e9 --sample 2", "--sample"},
      {"--params 1e9 --largest-layer 5", "--largest-layer"},
      {"--params 1e9 --compat zero-paper --stage 2", "--stage"},
      {"--largest-layer 5", "--largest-layer"},
      {"--json --markdown", "--markdown"}};
  for (const auto& [flags, flag] : cases) check_refused(kReport + flags, flag);
}

TEST_CASE("report: empty words and words with line ends") {
  const std::vector<std::pair<Words, std::string>> cases{
      {{"--html", ""}, "--html: is empty"},
      {{"--device-memory", ""}, "--device-memory: is empty"},
      {{"--model", "a\nb"}, "--model a\\x0ab: unknown"}};
  for (const auto& [flags, says] : cases) {
    Words words{ASHLAR_PROGRAM, "report"};
    words.insert(words.end(), flags.begin(), flags.end());
    const Finished done = Process(words).wait();
    CAPTURE(done.err);
    CHECK(done.code == 2);
    CHECK(std::ranges::count(done.err, '\n') == 1);
    CHECK(contains(done.err, says));
  }
}

TEST_CASE("report: --diff takes reports alone, whatever is done to them") {
  const Desk desk;
  const std::string good = report(step(desk)).dump();
  spill(desk.path("good.json"), good);
  std::mt19937 random(3);
  std::string deep;
  for (int i = 0; i < 5000; ++i) deep += "{\"a\":";
  std::vector<std::string> texts{"",      "[]",  "{",
                                 "\"a\"", "nan", deep + "1" + std::string(5000, '}')};
  for (int i = 0; i < 30; ++i) {
    std::string text = good;
    for (int n = 0; n < 3; ++n) text[random() % text.size()] = static_cast<char>(random() % 256);
    texts.push_back(text);
  }
  for (const std::string& text : texts) {
    spill(desk.path("other.json"), text);
    const Finished done =
        run(kReport + "--diff " + desk.path("good.json") + " " + desk.path("other.json"));
    CAPTURE(text.substr(0, 100));
    CHECK((done.code == 0 || done.code == 2));
    if (done.code == 2) CHECK(std::ranges::count(done.err, '\n') == 1);
  }
}

TEST_CASE("report: shares add up to the bytes at the peak") {
  const Desk desk;
  for (const char* by : {"unit", "module", "op"}) {
    const Json json = report(step(desk) + "--ranks 2 --by " + by);
    std::int64_t held = 0, named = 0;
    for (const auto& [name, bytes] : json["at_peak"].items())
      if (name != "fragmentation" && name != "padding") held += bytes.get<std::int64_t>();
    for (const auto& [name, bytes] : json["by"].items()) named += bytes.get<std::int64_t>();
    CHECK(named == held);
  }
}

TEST_CASE("report: --measure finds what was predicted") {
  const Desk desk;
  const Finished done = run(kReport + step(desk) + "--ranks 2 --accumulate 2 --measure");
  CHECK(done.code == 0);
  CHECK(done.out.find("differs") == std::string::npos);
  CHECK(done.out.find("measured") != std::string::npos);
}

TEST_CASE("report: other tools' numbers, and why ours differ") {
  const Json json = report("--compat deepspeed --params 2.851e9 --largest-layer 32e6 --ranks 8");
  CHECK(json["rows"].size() == 8);
  CHECK(json["rows"][1]["gpu_gib"] == doctest::Approx(11.28).epsilon(1e-3));
  CHECK(!json["why"].get<std::string>().empty());
  for (const char* tool : {"zero-paper", "accelerate", "megatron", "eleuther"})
    CHECK(report(std::string("--model gpt2 --seq 64 --compat ") + tool)["rows"].size() >= 3);
}

TEST_CASE("report: another tool's tensor parallelism, known to it alone") {
  const std::string flags =
      "--model gpt2 --seq 64 --ranks 16 --tensor-parallel 2 --compat eleuther";
  const Json whole = report(flags), apart = report(flags + " --partition-activations");
  const Json half = report(flags + " --pipeline-parallel 2");
  for (const int stage : {1, 3}) {
    const Json &a = whole["rows"][stage], &b = apart["rows"][stage], &c = half["rows"][stage];
    CHECK(a["activation_gib"].get<double>() == 2 * b["activation_gib"].get<double>());
    CHECK(a["model_gib"].get<double>() == 2 * c["model_gib"].get<double>());
    CHECK(a["communication_gib"].get<double>() > 0.9);
  }
  const Json one = report("--model gpt2 --seq 64 --ranks 8 --compat megatron");
  const Json eight =
      report("--model gpt2 --seq 64 --ranks 8 --compat megatron --tensor-parallel 8");
  CHECK(one["rows"][1]["activation_gib"].get<double>() ==
        doctest::Approx(8 * eight["rows"][1]["activation_gib"].get<double>()));
}

TEST_CASE("report: fp16 takes bf16's bytes; train_gpt and --measure refuse it") {
  const Desk desk;
  for (const char* flags : {"--ranks 3", "--ranks 2 --accumulate 2 --stage 1 --reduce each",
                            "--ranks 4 --accumulate 2 --order layers --clip 1"}) {
    Json half = report(step(desk) + flags + " --precision fp16");
    Json brain = report(step(desk) + flags + " --precision bf16");
    CHECK(half["precision"] == "fp16");
    half.erase("precision");
    brain.erase("precision");
    CHECK(half == brain);
  }
  Json closed = report("--params 7.5e9 --ranks 64 --stage 2 --precision fp16");
  CHECK(closed["model_state_bytes"]["gradient"] == 2 * 7'500'000'000 / 64);
  for (const std::string& line : {desk.base() + "--steps 1 --precision fp16",
                                  desk.base() + "--steps 1 --precision bf16 --reduce-dtype fp16",
                                  kReport + step(desk) + "--precision fp16 --measure"}) {
    const Finished done = run(line);
    CAPTURE(done.err);
    CHECK(done.code == 2);
    CHECK(done.err.find("fp16: can be reported") != std::string::npos);
    CHECK(std::ranges::count(done.err, '\n') == 1);
  }
}

TEST_CASE("completion: a script that bash takes, with commands, flags and models") {
  const TemporaryFolder folder;
  const Finished done = run(std::string(ASHLAR_PROGRAM) + " completion");
  CHECK(done.code == 0);
  const std::string script =
      done.out +
      "\nCOMP_CWORD=2; COMP_WORDS=(ashlar report --all); _ashlar; echo \"${COMPREPLY[@]}\""
      "\nCOMP_CWORD=1; COMP_WORDS=(ashlar rep); _ashlar; echo \"${COMPREPLY[@]}\""
      "\nCOMP_CWORD=3; COMP_WORDS=(ashlar report --model megatron-1t); _ashlar; echo "
      "\"${COMPREPLY[@]}\""
      "\nfor f in --precision --stage --compat --by --reshard --model; do COMP_WORDS=(ashlar "
      "report "
      "$f ''); _ashlar; echo \"${COMPREPLY[@]}\" | cut -c1-32; done"
      "\nfor f in --cluster --collective; do COMP_WORDS=(ashlar simulate $f ''); _ashlar; echo "
      "\"${COMPREPLY[@]}\"; done"
      "\nCOMP_WORDS=(ashlar report --order l); _ashlar; echo \"${COMPREPLY[@]}\"\n";
  const Finished bash = run("bash " + folder.write("complete.sh", script).string());
  CHECK(bash.err == "");
  CHECK(bash.out ==
        "--all-stages\nreplay-allocations report\nmegatron-1t\n"
        "fp32 bf16 fp16\n0 1 2 3\naccelerate deepspeed eleuther me\nunit module op\non off\n"
        "tiny small gpt2 gpt2-medium gpt2\n"
        "cpu dgx-a100-40gb dgx-a100 dgx-h100 dgx2-v100 llm-foundry-calibration:a100_40gb "
        "llm-foundry-calibration:a100_80gb llm-foundry-calibration:h100_80gb\nauto ring tree "
        "hierarchical\nlayers\n");
}

TEST_CASE("report: bad input is one line and exit 2") {
  const Desk desk;
  desk.folder.write("gpt.json", R"({"model_type": "gpt2", "n_layer": 2})");
  const std::vector<std::pair<std::string, std::string>> cases{
      {"--model gpt2-xxl", "did you mean gpt2-xl"},
      {"--model megatron-2t", "megatron-1t"},
      {"--model " + desk.path("gpt.json"), "n_head"},
      {"--ranks 0", "--ranks"},
      {"--stage 4", "--stage"},
      {"--precision fp8", "--precision"},
      {"--optimizer lion", "--optimizer"},
      {"--ranks 12 --ranks-per-node 8", "multiple"},
      {"--params -1", "--params"},
      {"--params nan", "--params"},
      {"--params 1e9 --by unit", "--by"},
      {"--device-memory much", "--device-memory"},
      {"--backend i8086", "--backend"},
      {"--by colour", "--by"},
      {"--compat gpt4", "--compat"},
      {"--tensor-parallel 2 --ranks 2", "not supported"},
      {"--compat deepspeed --tensor-parallel 2 --ranks 2", "not supported"},
      {"--compat megatron --pipeline-parallel 2 --ranks 2", "not supported"},
      {"--compat eleuther --tensor-parallel 2 --ranks 3", "must divide"},
      {"--compat eleuther --tensor-parallel 2 --pipeline-parallel 2 --ranks 6", "must divide"},
      {"--compat eleuther --tensor-parallel 0", "--tensor-parallel"},
      {"--compat megatron --partition-activations", "--partition-activations"},
      {"--diff a.json b.json", "a.json"},
      {"--diff . .", "is not one report"},
      {"--expert-parallel 2", "not supported"},
      {"--compat accelerate --params 1e9 --largest-layer nan", "--largest-layer"},
      {"--compat accelerate --params 1e9 --largest-layer 1e10", "--largest-layer"},
      {"--html /no/such/folder/r.html", "/no/such/folder/r.html"},
      {"--seq 257", "257"}};
  for (const auto& [flags, says] : cases) {
    CAPTURE(flags);
    const Finished done = run(kReport + flags);
    CHECK(done.code == 2);
    CHECK(done.out == "");
    CAPTURE(done.err);
    CHECK(std::ranges::count(done.err, '\n') == 1);
    CHECK(done.err.find(says) != std::string::npos);
  }
}

}  // namespace cli
