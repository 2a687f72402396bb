// A token that the model does not have, far into a file where only one rank meets it: one line by
// one rank, exit code 2, and no checkpoint of a step that had it.
#include <doctest/doctest.h>

#include <algorithm>

#include "cli/desk.hpp"

namespace cli {

TEST_CASE("bad tokens: met in the middle of training by one rank") {
  const Desk desk;
  std::string file((1 << 20) * 2, '\0');  // uint16; the first part is checked when it is opened
  for (int i = 0; i < 20'000; ++i) file += "\x2c\x01";  // 300
  desk.folder.write("tokens.bin", file);
  const std::string line = fmt::format(
      "{} --model {} --tokens {} --seq 16 --batch 1 --threads 1 --steps 500 --quiet "
      "--save-every 1 --save ",
      kTrainGpt, desk.path("config.json"), desk.path("tokens.bin"));
  const auto check = [&](const std::string& command, const std::string& saved) {
    const Finished finished = run(command);
    CAPTURE(command);
    CAPTURE(finished.err);
    CHECK(finished.code == 2);
    CHECK(std::ranges::count(finished.err, '\n') == 1);
    CHECK(finished.err.starts_with("train_gpt: "));
    CHECK(contains(finished.err, "tokens.bin: token 300 at position "));
    const Finished resumed = run(command + " --resume " + saved);
    CHECK(resumed.code == 2);  // by the same token: the checkpoint itself is whole
    CHECK(contains(resumed.err, "tokens.bin: token 300 at position "));
  };
  check(line + desk.path("threads") + " --ranks 3", desk.path("threads"));
  if (has_mpi()) check(mpiexec(2) + line + desk.path("mpi"), desk.path("mpi"));
}

}  // namespace cli
