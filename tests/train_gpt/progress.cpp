#include "train_gpt/progress.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdlib>
#include <functional>

#include "support/temporary_folder.hpp"

using namespace train_gpt;

namespace {

StepMetrics at(std::int64_t step) {
  StepMetrics m;
  m.step = step;
  m.loss = 2.5F;
  m.tokens_per_second = 1234.4;
  m.peak.total = std::int64_t{3} << 20;
  return m;
}

std::string printed(ProgressMode mode, std::int64_t last,
                    const std::function<void(Progress&)>& body) {
  std::FILE* file = std::tmpfile();
  {
    Progress progress(file, mode, 1, last);
    body(progress);
  }
  std::string text(static_cast<std::size_t>(std::ftell(file)), '\0');
  std::rewind(file);
  text.resize(std::fread(text.data(), 1, text.size(), file));
  std::fclose(file);
  return text;
}

}  // namespace

TEST_CASE("progress: plain lines come every five seconds, and for the first and last step") {
  const std::string text = printed(ProgressMode::plain, 20, [](Progress& progress) {
    for (int step = 1; step <= 20; ++step) progress.update(at(step), 100 + step);
  });
  CHECK(std::ranges::count_if(text, [](char c) { return c == '\n'; }) == 5);  // 1, 6, 11, 16, 20
  CHECK(text.starts_with("step 1/20  loss 2.5000  1234 tokens/s  peak 3.00 MiB\n"));
  CHECK(contains(text, "step 11/20  loss 2.5000  1234 tokens/s  0:09 left  peak 3.00 MiB\n"));
  CHECK(!contains(text, "\r"));
}

TEST_CASE("progress: a terminal's line updates in place and ends with the run") {
  const std::string text = printed(ProgressMode::terminal, 3, [](Progress& progress) {
    for (int step = 1; step <= 3; ++step) progress.update(at(step), step);
  });
  CHECK(std::ranges::count_if(text, [](char c) { return c == '\r'; }) == 3);
  CHECK(std::ranges::count_if(text, [](char c) { return c == '\n'; }) == 1);
  CHECK(text.ends_with("\n"));
}

TEST_CASE("progress: the last validation loss stays in view") {
  const std::string text = printed(ProgressMode::plain, 9, [](Progress& progress) {
    StepMetrics first = at(1);
    first.validation_loss = 3.25;
    progress.update(first, 1);
    progress.update(at(9), 90);
  });
  CHECK(contains(text, "step 9/9  loss 2.5000  validation 3.2500"));
}

TEST_CASE("progress: quiet prints nothing") {
  CHECK(printed(ProgressMode::quiet, 2, [](Progress& progress) {
          progress.update(at(1), 1);
          progress.update(at(2), 20);
        }).empty());
  std::FILE* file = std::tmpfile();
  CHECK(progress_mode(file, false) == ProgressMode::plain);
  CHECK(progress_mode(file, true) == ProgressMode::quiet);
  ::setenv("ASHLAR_PROGRESS", "terminal", 1);
  CHECK(progress_mode(file, false) == ProgressMode::terminal);
  CHECK(progress_mode(file, true) == ProgressMode::quiet);
  ::unsetenv("ASHLAR_PROGRESS");
  CHECK(progress_mode(file, false) == ProgressMode::plain);
  std::fclose(file);
}

TEST_CASE("progress: durations") {
  CHECK(format_duration(0) == "0:00");
  CHECK(format_duration(61.4) == "1:01");
  CHECK(format_duration(59.6) == "1:00");
  CHECK(format_duration(3723) == "1:02:03");
}
