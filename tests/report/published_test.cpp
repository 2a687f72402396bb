// Other people's numbers: those that their formulas give, and those that ours give too.
#include "report/published.hpp"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <cmath>

#include "report/closed_form.hpp"
#include "report/compat.hpp"

using namespace ashlar;

namespace {

/// ctest's report.published says "skipped" where they are missing (ASHLAR_DATA_DIR).
const doctest::skip kWithData(published::folder().empty());

constexpr double kGiB = 1 << 30, kMiB = 1 << 20;

/// One in the last digit that is printed: some tables round, some cut.
double unit_of(const std::string& printed) {
  const std::size_t point = printed.find('.');
  return point == std::string::npos
             ? 1
             : std::pow(10.0, -static_cast<double>(printed.size() - point - 1));
}

void check_printed(double value, const std::string& printed) {
  CAPTURE(value);
  CAPTURE(printed);
  CHECK(std::abs(value - std::stod(printed)) <= unit_of(printed) * (1 + 1e-9));
}

bool has(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

compat::DeepSpeedCase deepspeed_case(const published::Row& row) {
  const std::string& options = row.at("options");
  compat::DeepSpeedCase c;
  c.parameters = std::stod(row.at("params"));
  c.largest_layer = std::stod(row.at("largest_layer"));
  c.ranks_per_node = std::stoi(row.at("gpus_per_node"));
  c.nodes = std::stoi(row.at("nodes"));
  c.offload_optimizer = has(options, "off=1") || has(options, "cpu_offload=1") ||
                        has(options, "full offload") || has(options, "optimizer offload");
  c.offload_parameters = has(options, "offp=1") || has(options, "full offload");
  c.zero_init = !has(options, "init=0");
  return c;
}

compat::HostAndDevice deepspeed(const std::string& tool, const compat::DeepSpeedCase& c) {
  return has(tool, "zero2") ? compat::deepspeed_zero2(c, true) : compat::deepspeed_zero3(c);
}

/// "live" runs knew the exact size of a model that they name in whole millions.
void check_between(double low, double high, const std::string& printed) {
  CAPTURE(low);
  CAPTURE(high);
  CAPTURE(printed);
  CHECK(std::stod(printed) >= low - 0.5 * unit_of(printed) - 1e-9);
  CHECK(std::stod(printed) <= high + 0.5 * unit_of(printed) + 1e-9);
}

void check_deepspeed(const published::Row& row) {
  compat::DeepSpeedCase c = deepspeed_case(row);
  const std::string& host = row.at("cpu_GB(GiB)");
  const std::string& device = row.at("gpu_GB(GiB)");
  const compat::HostAndDevice least = deepspeed(row.at("tool"), c);
  const bool cold = has(row.at("options"), "cold") || row.at("model") == "t5-large";
  if (!cold) {
    c.parameters += 1e6;
    c.largest_layer += 1e6;
  }
  const compat::HostAndDevice most = deepspeed(row.at("tool"), c);
  CAPTURE(row.at("options"));
  if (!host.empty()) check_between(least.host / kGiB, most.host / kGiB, host);
  if (row.at("model") == "t5-large") {  // in whole MiB, kept as GiB
    CHECK(std::floor(least.device / kMiB) == std::stod(device) * 1024);
  } else {
    check_between(least.device / kGiB, most.device / kGiB, device);
  }
}

}  // namespace

TEST_CASE("published: ZeRO's table 1, all 54 cells, by our formulas and theirs" * kWithData) {
  int cells = 0;
  for (const published::Row& row : published::read("zero_paper_table1.csv")) {
    const double parameters = std::stod(row.at("params_B")) * 1e9;
    const int stage = std::stoi(row.at("zero_stage")), ranks = std::stoi(row.at("dp_degree"));
    CAPTURE(row.at("model"));
    CAPTURE(stage);
    CAPTURE(ranks);
    check_printed(compat::zero_paper_bytes(parameters, ranks, stage) / 1e9, row.at("published_GB"));
    ZeroCase zero;
    zero.trainable = static_cast<std::int64_t>(parameters);
    zero.ranks = ranks;
    zero.stage = stage;
    zero.bf16 = true;
    zero.reduce_each = stage >= 2;
    check_printed(static_cast<double>(state_formula(zero).sum()) / 1e9, row.at("published_GB"));
    ++cells;
  }
  CHECK(cells == 54);
}

TEST_CASE("published: ZeRO's table 2, the largest models that fit 32 GB in theory" * kWithData) {
  int rows = 0;
  for (const published::Row& row : published::read("zero_paper_table2_max_model.csv")) {
    const double parallel = std::stod(row.at("mp"));
    const auto largest = [&](int stage) {  // decimal billions; 64 ranks of data parallelism
      return parallel * 32e9 / compat::zero_paper_bytes(1, 64, stage) / 1e9;
    };
    check_printed(largest(0), row.at("theory_baseline_B"));
    // Every row is the first one doubled again and again, and that is printed to a digit.
    const double first = parallel;
    const auto check_scaled = [&](double value, const std::string& printed, double unit) {
      CAPTURE(value);
      CAPTURE(printed);
      CHECK(std::abs(value - std::stod(printed)) <= unit * first);
    };
    check_scaled(largest(1), row.at("theory_pos_B"), 0.1);
    check_scaled(largest(2), row.at("theory_pos_g_B"), 0.1);
    CHECK(std::stod(row.at("theory_pos_g_p_B")) <= largest(3));
    CHECK(std::stod(row.at("theory_pos_g_p_B")) >= 0.97 * largest(3));
    ++rows;
  }
  CHECK(rows == 5);
}

TEST_CASE("published: what DeepSpeed's estimators print" * kWithData) {
  int rows = 0;
  for (const published::Row& row : published::read("estimator_outputs.csv")) {
    if (!has(row.at("tool"), "DeepSpeed")) continue;
    check_deepspeed(row);
    ++rows;
  }
  CHECK(rows == 22);
  compat::DeepSpeedCase today;
  today.parameters = 2851e6;
  today.ranks_per_node = 8;
  check_printed(compat::deepspeed_zero2(today).device / kGiB, "11.28");
}

TEST_CASE("published: what accelerate's estimate-memory prints of BERT" * kWithData) {
  // bert-base-cased: 108,310,272 parameters, the word embedding of 28996 x 768 the largest.
  int rows = 0;
  const std::map<std::string, double> widths{
      {"float32", 4}, {"float16", 2}, {"int8", 1}, {"int4", 0.5}};
  for (const published::Row& row : published::read("estimator_outputs.csv")) {
    if (!has(row.at("tool"), "accelerate")) continue;
    const auto estimate =
        compat::accelerate(108'310'272, 28996 * 768, widths.at(row.at("options")));
    const std::string& printed = row.at("gpu_GB(GiB)");
    CHECK(has(printed, fmt::format("{:.2f} MB largest", estimate.largest_layer / kMiB).c_str()));
    CAPTURE(printed);
    CHECK(std::abs(estimate.total / kMiB - std::stod(printed.substr(printed.find("; ") + 2))) <=
          0.0101);
    const double training = std::stod(row.at("observed_or_note"));
    const double shown = training < 10 ? estimate.training / kGiB : estimate.training / kMiB;
    CHECK(std::abs(shown - training) <= 0.0201);
    ++rows;
  }
  CHECK(rows == 4);
}

namespace {

/// "total act 68.00, model 12.80, grad 25.60, opt 76.79 GiB": the number after a word; else "".
std::string number_after(const std::string& text, const std::string& word) {
  const std::size_t at = text.find(word + ' ');
  if (at == std::string::npos) return "";
  const std::size_t begin = at + word.size() + 1;
  return text.substr(begin, text.find_first_not_of("0123456789.", begin) - begin);
}

/// What the tool counts of a GPT: both ends' words, positions, norms, products; 51,200 words.
double eleuther_parameters(const compat::TransformerShape& shape) {
  const auto layers = static_cast<double>(shape.layers), width = static_cast<double>(shape.hidden);
  return 2 * 51200 * width + width * static_cast<double>(shape.sequence) +
         (8 * layers + 2) * width + 12 * layers * width * width;
}

}  // namespace

TEST_CASE("published: EleutherAI's calculator, with ZeRO and tensor parallelism" * kWithData) {
  const std::map<std::string, compat::TransformerShape> models{
      {"20B default", {44, 64, 6144, 2048, 1, 1}}, {"pythia-6.9B", {32, 32, 4096, 2048, 8, 2}}};
  int rows = 0;
  for (const published::Row& row : published::read("estimator_outputs.csv")) {
    if (!has(row.at("tool"), "EleutherAI")) continue;
    const std::string& options = row.at("options");
    const std::string& note = row.at("observed_or_note");
    CAPTURE(options);
    compat::EleutherCase c;
    c.shape = models.at(row.at("model"));
    c.parameters = eleuther_parameters(c.shape);
    c.ranks = std::stoi(row.at("gpus_per_node")) * std::stoi(row.at("nodes"));
    c.stage = has(options, "z3") ? 3 : 1;
    c.partition_activations = has(options, "-pa");
    check_printed(compat::eleuther(c).sum() / kGiB, row.at("gpu_GB(GiB)"));
    compat::EleutherCase whole = c;  // its "total" figures: of one replica
    whole.ranks = whole.shape.tensor_parallel = 1;
    whole.stage = 0;
    const auto total = compat::eleuther(whole);
    for (const auto& [word, bytes] :
         {std::pair{"act", total.activation}, std::pair{"model", total.model},
          std::pair{"grad", total.gradient}, std::pair{"opt", total.optimizer}}) {
      CAPTURE(word);
      if (has(note, "model")) check_printed(bytes / kGiB, number_after(note, word));
    }
    ++rows;
  }
  CHECK(rows == 3);
}

TEST_CASE("published: Korthikanti's activations and their parts" * kWithData) {
  using compat::Activations;
  int rows = 0;
  for (const published::Row& row : published::read("korthikanti_2205_05198.csv")) {
    if (row.at("fig1_act_GiB_tp_only").empty()) continue;
    const auto whole = [&](const char* key) { return std::stoll(row.at(key)); };
    const compat::TransformerShape shape{whole("layers"), whole("heads"),       whole("hidden"),
                                         whole("seq"),    whole("micro_batch"), 8};
    // Interleaved stages hold 1 + (p - 1) / (p m) times a stage's activations (section 4.2.3).
    const double stages = static_cast<double>(whole("pp"));
    const double chunks = row.at("model") == "175B" || row.at("model") == "530B" ? 3 : 1;
    const double held = stages > 1 && chunks > 1 ? 1 + (stages - 1) / (stages * chunks) : 1;
    CAPTURE(row.at("model"));
    const auto gib = [&](Activations how) {
      return compat::activation_bytes(shape, how) * held / kGiB;
    };
    check_printed(gib(Activations::tensor), row.at("fig1_act_GiB_tp_only"));
    check_printed(gib(Activations::sequence_selective), row.at("fig1_act_GiB_seq_sel"));
    const auto check_percent = [&](Activations how,
                                   const char* key) {  // measured off a chart, to 0.15 points
      const double part = compat::activation_bytes(shape, how) /
                          compat::activation_bytes(shape, Activations::tensor);
      CAPTURE(key);
      CHECK(std::abs(100 * part - std::stod(row.at(key))) <= 0.15);
    };
    check_percent(Activations::sequence, "fig7_seq_pct");
    check_percent(Activations::selective, "fig7_sel_pct");
    check_percent(Activations::sequence_selective, "fig7_seqsel_pct");
    check_percent(Activations::full, "fig7_full_pct");
    ++rows;
  }
  CHECK(rows == 4);
}

TEST_CASE("published: what llm.c saves by ZeRO stage 1" * kWithData) {
  const std::vector<published::Row> rows = published::read("llmc_zero1_memory.csv");
  int pairs = 0;
  for (const published::Row& row : rows) {
    if (row.at("zero_stage") != "1" || row.at("total_MiB_per_gpu").empty()) continue;
    for (const published::Row& other : rows) {
      if (other.at("zero_stage") != "0" || other.at("model") != row.at("model")) continue;
      ZeroCase zero;
      zero.trainable = std::stoll(row.at("params_padded"));
      zero.ranks = std::stoi(row.at("gpus"));
      zero.bf16 = true;
      const std::int64_t whole = state_formula(zero).sum();
      zero.stage = 1;
      const double saved = static_cast<double>(whole - state_formula(zero).sum()) / kMiB;
      const double published_saving =
          std::stod(other.at("total_MiB_per_gpu")) - std::stod(row.at("total_MiB_per_gpu"));
      CAPTURE(row.at("model"));
      CHECK(std::abs(saved / published_saving - 1) <= 0.0005);
      ++pairs;
    }
  }
  CHECK(pairs == 2);
}
