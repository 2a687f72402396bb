// IDX files, plain, packed and broken; the order of training samples.
#include "fashion_mnist/dataset.hpp"

#include <doctest/doctest.h>
#include <zlib.h>

#include <algorithm>
#include <set>

#include "ashlar/error.hpp"
#include "vision/synthetic.hpp"

namespace vision {
namespace {

using ashlar::InvalidArgument;

std::string read(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

struct Desk {
  TemporaryFolder folder, cache;
  const std::string images = "train-images-idx3-ubyte", labels = "train-labels-idx1-ubyte";

  Desk() { write_split(folder, "train", 12); }

  std::string failure() const {
    return message_of<InvalidArgument>([&] { Split(folder.path, "train", cache.path); });
  }
  void pack(const std::string& name) const {
    const std::string bytes = read(folder.path / name);
    const gzFile file = gzopen((folder.path / (name + ".gz")).c_str(), "wb");
    gzwrite(file, bytes.data(), static_cast<unsigned>(bytes.size()));
    gzclose(file);
    std::filesystem::remove(folder.path / name);
  }
};

}  // namespace

TEST_CASE("vision: images are normalised, labels are theirs") {
  const Desk desk;
  const std::string bytes = read(desk.folder.path / desk.images);
  const std::string labels = read(desk.folder.path / desk.labels);
  const Split split(desk.folder.path, "train", desk.cache.path);
  REQUIRE(split.size() == 12);
  std::vector<float> image(784);
  for (std::size_t i = 0; i < 12; ++i) {
    split.image(static_cast<std::int64_t>(i), image.data());
    CHECK(split.label(static_cast<std::int64_t>(i)) == labels[8 + i]);
    for (std::size_t p = 0; p < 784; ++p) {
      const double pixel = static_cast<unsigned char>(bytes[16 + i * 784 + p]);
      CHECK(static_cast<double>(image[p]) == doctest::Approx((pixel / 255 - 0.2860) / 0.3530));
    }
  }
}

TEST_CASE("vision: packed files are unpacked once, and again when they change") {
  const Desk desk;
  const std::string plain = read(desk.folder.path / desk.images);
  desk.pack(desk.images);
  const auto unpacked = [&] {
    std::vector<std::filesystem::path> files;
    for (const auto& entry : std::filesystem::directory_iterator(desk.cache.path))
      files.push_back(entry.path());
    return files;
  };
  for (int time = 0; time < 2; ++time) {
    CHECK(Split(desk.folder.path, "train", desk.cache.path).size() == 12);
    REQUIRE(unpacked().size() == 1);
    CHECK(read(unpacked()[0]) == plain);
  }
  write_split(desk.folder, "train", 13);
  desk.pack(desk.images);
  CHECK(Split(desk.folder.path, "train", desk.cache.path).size() == 13);
}

TEST_CASE("vision: broken files are named") {
  const Desk desk;
  const std::string images = read(desk.folder.path / desk.images);
  const std::string labels = read(desk.folder.path / desk.labels);
  CHECK(desk.failure() == "nothing thrown");
  desk.folder.write(desk.images, images.substr(0, images.size() - 1));
  CHECK(contains(desk.failure(), "train-images-idx3-ubyte' holds 9407 values, not 9408"));
  for (const std::size_t size : {0, 3, 15})
    CHECK((desk.folder.write(desk.images, images.substr(0, size)),
           contains(desk.failure(), "is no IDX file of bytes with 3 extents")));
  desk.folder.write(desk.images, labels);
  CHECK(contains(desk.failure(), "is no IDX file of bytes with 3 extents"));
  desk.folder.write(desk.images, images.substr(0, 4) + std::string(12, '\xff'));
  CHECK(contains(desk.failure(), "extent 1 is 4294967295"));
  desk.folder.write(desk.images, images);
  std::string wrong = labels;
  wrong[10] = 10;
  desk.folder.write(desk.labels, wrong);
  CHECK(contains(desk.failure(), "label 2 is 10, not below 10"));
  std::string fewer = labels.substr(0, labels.size() - 1);
  fewer[7] = 11;
  desk.folder.write(desk.labels, fewer);
  CHECK(contains(desk.failure(), "12 images, but 11 labels"));
  std::filesystem::remove(desk.folder.path / desk.labels);
  CHECK(contains(desk.failure(), "install Debian's dataset-fashion-mnist"));
}

TEST_CASE("vision: damaged packed files are named and leave nothing behind") {
  const Desk desk;
  desk.pack(desk.images);
  const std::string name = desk.images + ".gz", packed = read(desk.folder.path / name);
  std::string flipped = packed;
  flipped[packed.size() / 2] = static_cast<char>(flipped[packed.size() / 2] ^ 0x55);
  for (const std::string& bytes : {packed.substr(0, packed.size() / 2), flipped}) {
    desk.folder.write(name, bytes);
    CHECK(contains(desk.failure(), "train-images-idx3-ubyte.gz' is damaged or truncated"));
    CHECK(std::filesystem::is_empty(desk.cache.path));
  }
}

TEST_CASE("vision: each epoch is all samples, in an order of its own") {
  for (const std::int64_t size : {1, 2, 5, 64, 1000, 4097}) {
    std::set<std::vector<std::int64_t>> orders;
    for (std::int64_t epoch = 0; epoch < 3; ++epoch) {
      std::vector<std::int64_t> order;
      for (std::int64_t i = 0; i < size; ++i) order.push_back(shuffled(epoch * size + i, size, 7));
      orders.insert(order);
      std::ranges::sort(order);
      for (std::int64_t i = 0; i < size; ++i) REQUIRE(order[static_cast<std::size_t>(i)] == i);
    }
    if (size >= 64) CHECK(orders.size() == 3);
  }
  std::int64_t same = 0;
  for (std::int64_t i = 0; i < 1000; ++i)
    same += shuffled(i, 1000, 1) == shuffled(i, 1000, 2) ? 1 : 0;
  CHECK(same < 20);
}

}  // namespace vision
