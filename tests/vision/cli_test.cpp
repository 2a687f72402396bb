// The programs as a user starts them: their last line, and what they refuse.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>

#include "support/process.hpp"
#include "vision/synthetic.hpp"

namespace vision {
namespace {

const std::string kFashionMnist = ASHLAR_FASHION_MNIST, kTiny = ASHLAR_TINY_256KB;
const std::string kMpiexec = ASHLAR_MPIEXEC;

struct Desk {
  TemporaryFolder folder;
  Desk() {
    write_split(folder, "train", 200);
    write_split(folder, "t10k", 64);
  }
  std::string data() const { return " --data " + folder.path.string(); }
};

/// "test accuracy 88.3 %" ends the output.
void check_trains(const std::string& line, double least) {
  const Finished finished = run(line);
  CAPTURE(line);
  CAPTURE(finished.err);
  REQUIRE(finished.code == 0);
  const std::size_t last = finished.out.rfind("\ntest accuracy ");
  REQUIRE(last != std::string::npos);
  double accuracy = 0;
  char per_cent = 0, newline = 0;
  REQUIRE(std::sscanf(finished.out.c_str() + last + 1, "test accuracy %lf %c%c", &accuracy,
                      &per_cent, &newline) == 3);
  CHECK(per_cent == '%');
  CHECK(finished.out.ends_with(" %\n"));
  CHECK(accuracy >= least);
}

void check_refused(const std::string& line, const std::string& named) {
  const Finished finished = run(line);
  CAPTURE(line);
  CAPTURE(finished.err);
  CHECK(finished.code == 2);
  CHECK(std::ranges::count(finished.err, '\n') == 1);
  CHECK(contains(finished.err, named));
}

}  // namespace

TEST_CASE("vision: fashion_mnist trains alone, on threads and on processes") {
  const Desk desk;
  const std::string line = kFashionMnist + desk.data() + " --batch 8 --threads 1";
  check_trains(line + " --epochs 3", 90);
  check_trains(line + " --epochs 2 --model cnn --ranks 2", 90);
  if (!kMpiexec.empty()) check_trains(kMpiexec + " -n 2 " + line + " --epochs 3", 90);
}

TEST_CASE("vision: tiny_256kb trains and prints its plan") {
  const Desk desk;
  const std::string line = kTiny + desk.data() + " --epochs 4";
  check_trains(line, 90);
  const Finished finished = run(line);
  for (const char* entry : {"parameter", "optimizer_state", "activation", "planned", "262144"})
    CHECK(contains(finished.out, entry));
  CHECK(run(line + " --at-least 101").code == 1);
}

TEST_CASE("vision: bad input is one line and exit code 2") {
  const Desk desk;
  for (const std::string& program : {kFashionMnist, kTiny}) {
    check_refused(program + " --data /nowhere", "/nowhere/train-images-idx3-ubyte");
    check_refused(program + desk.data() + " --epochs 0", "--epochs 0: 1 to 10000");
    check_refused(program + desk.data() + " --epochs two", "--epochs");
    check_refused(program + desk.data() + " --batch -1", "--batch -1");
    check_refused(program + desk.data() + " --lr nan", "--lr nan");
    check_refused(program + desk.data() + " --epoch 3", "--epoch");
  }
  check_refused(kFashionMnist + desk.data() + " --model vgg", "--model vgg: mlp or cnn");
  check_refused(kFashionMnist + desk.data() + " --ranks 0", "--ranks 0");
  check_refused(kFashionMnist + desk.data() + " --ranks 3 --batch 64",
                "64 does not divide among 3");
  check_refused(kTiny + desk.data() + " --batch 32", "262144 bytes) cannot be met");
  if (kMpiexec.empty()) return;
  check_refused(kMpiexec + " -n 2 " + kFashionMnist + desk.data() + " --ranks 2", "--ranks");
  check_refused(kMpiexec + " -n 2 " + kFashionMnist + " --data /nowhere", "/nowhere");
  check_refused(kMpiexec + " -n 2 " + kFashionMnist + desk.data() + " --batch 9",
                "does not divide");
}

}  // namespace vision
