#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <numeric>

#include "ashlar/data.hpp"
#include "ashlar/error.hpp"
#include "support/temporary_folder.hpp"

namespace fs = std::filesystem;
using ashlar::Corpus;
using ashlar::InvalidArgument;
using ashlar::TokenSource;

namespace {

std::vector<std::int32_t> all(const TokenSource& source) {
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(source.size()));
  source.copy(0, tokens);
  return tokens;
}

std::string text_of(const TokenSource& source) {
  std::string text;
  for (const auto token : all(source)) text.push_back(static_cast<char>(token));
  return text;
}

Corpus open_text(std::vector<fs::path> paths, const ashlar::Holdout& holdout = {}) {
  return ashlar::open_text(paths, holdout);
}

Corpus open_tokens(std::vector<fs::path> paths, std::int64_t vocabulary,
                   const ashlar::Holdout& holdout = {}) {
  return ashlar::open_tokens(paths, vocabulary, holdout);
}

std::vector<std::uint16_t> llmc(std::int32_t magic, std::int32_t version, std::int32_t count,
                                const std::vector<std::uint16_t>& tokens) {
  std::vector<std::uint16_t> words(512);
  const std::array<std::int32_t, 3> header{magic, version, count};
  std::memcpy(words.data(), header.data(), sizeof(header));
  words.insert(words.end(), tokens.begin(), tokens.end());
  return words;
}

}  // namespace

TEST_CASE("data: text files and folders are one sequence of bytes in the order of their paths") {
  const TemporaryFolder folder;
  folder.write("tree/b.txt", "bb");
  folder.write("tree/a/z.txt", "\xff\x01");
  folder.write("tree/a/empty.txt", "");
  folder.write("tree/c", "c");
  const fs::path single = folder.write("last.txt", "end");
  const Corpus corpus = open_text({folder.path / "tree", single});
  CHECK(corpus.validation == nullptr);
  CHECK(text_of(*corpus.train) ==
        "\xff\x01"
        "bbcend");
  CHECK(all(*corpus.train)[0] == 255);
}

TEST_CASE("data: any range of a concatenation is that range of the whole") {
  const TemporaryFolder folder;
  std::string whole;
  for (int i = 0; i < 12; ++i) {
    const std::string part(static_cast<std::size_t>(1 + i * i % 7), static_cast<char>('a' + i));
    folder.write(std::string(1, static_cast<char>('a' + i)), part);
    whole += part;
  }
  const Corpus corpus = open_text({folder.path});
  const auto size = static_cast<std::int64_t>(whole.size());
  REQUIRE(corpus.train->size() == size);
  for (std::int64_t begin = 0; begin <= size; ++begin)
    for (std::int64_t end = begin; end <= size; ++end) {
      std::vector<std::int32_t> tokens(static_cast<std::size_t>(end - begin));
      corpus.train->copy(begin, tokens);
      for (std::int64_t i = begin; i < end; ++i)
        REQUIRE(tokens[static_cast<std::size_t>(i - begin)] == whole[static_cast<std::size_t>(i)]);
    }
  std::vector<std::int32_t> two(2);
  CHECK_THROWS_AS(corpus.train->copy(size - 1, two), InvalidArgument);
  CHECK_THROWS_AS(corpus.train->copy(-1, two), InvalidArgument);
}

TEST_CASE("data: a file reached twice counts once") {
  const TemporaryFolder folder;
  const fs::path file = folder.write("tree/a.txt", "abc");
  fs::create_symlink(file, folder.path / "tree/link.txt");
  CHECK(text_of(*open_text({folder.path / "tree", file}).train) == "abc");
}

TEST_CASE("data: whole files are held out, about the fraction, the same for the same seed") {
  const TemporaryFolder folder;
  std::map<char, std::string> contents;
  for (int i = 0; i < 40; ++i) {
    const char letter = static_cast<char>('0' + i);
    contents[letter] = std::string(static_cast<std::size_t>(50 + 37 * i % 100), letter);
    folder.write(std::string("f") + letter, contents[letter]);
  }
  std::vector<std::string> chosen;
  for (const std::uint64_t seed : {1, 1, 2}) {
    const Corpus corpus = open_text({folder.path}, {.fraction = 0.1, .seed = seed});
    const std::string train = text_of(*corpus.train);
    const std::string held = text_of(*corpus.validation);
    for (const auto& [letter, bytes] : contents) {
      const auto in_train = std::ranges::count(train, letter);
      const auto in_held = std::ranges::count(held, letter);
      CHECK(std::min(in_train, in_held) == 0);
      CHECK(in_train + in_held == static_cast<std::ptrdiff_t>(bytes.size()));
    }
    const auto share =
        static_cast<double>(held.size()) / static_cast<double>(held.size() + train.size());
    CHECK(share == doctest::Approx(0.1).epsilon(0.15));
    chosen.push_back(held);
  }
  CHECK(chosen[0] == chosen[1]);
  CHECK(chosen[0] != chosen[2]);
}

TEST_CASE("data: the held-out files do not depend on where the folder lies") {
  const TemporaryFolder folder;
  for (const std::string place : {"here/", "elsewhere/deep/"})
    for (char letter = 'a'; letter < 'k'; ++letter)
      folder.write(place + letter, std::string(100, letter));
  const ashlar::Holdout holdout{.fraction = 0.3, .seed = 5};
  CHECK(text_of(*open_text({folder.path / "here"}, holdout).validation) ==
        text_of(*open_text({folder.path / "elsewhere/deep"}, holdout).validation));
}

TEST_CASE("data: one of two files is held out however small the fraction, never both") {
  const TemporaryFolder folder;
  folder.write("large", std::string(100, 'a'));
  folder.write("small", std::string(50, 'b'));
  for (const double fraction : {0.001, 0.999}) {
    const Corpus corpus = open_text({folder.path}, {.fraction = fraction, .seed = 3});
    CHECK(corpus.train->size() > 0);
    CHECK(corpus.validation->size() > 0);
    if (fraction < 0.5) CHECK(text_of(*corpus.validation) == std::string(50, 'b'));
  }
}

TEST_CASE("data: the tail of a single file is held out") {
  const TemporaryFolder folder;
  const fs::path file = folder.write("a", "0123456789");
  const Corpus corpus = open_text({file}, {.fraction = 0.3});
  CHECK(text_of(*corpus.train) == "0123456");
  CHECK(text_of(*corpus.validation) == "789");
  CHECK_THROWS_AS(open_text({file}, {.fraction = 1}), InvalidArgument);
  CHECK(contains(message_of<InvalidArgument>([&] { open_text({file}, {.fraction = 0.001}); }),
                 "too few"));
  const fs::path words = folder.write_words("w.bin", {1, 2, 3, 4});
  CHECK(all(*open_tokens({words}, 9, {.fraction = 0.5}).validation) ==
        std::vector<std::int32_t>{3, 4});
}

TEST_CASE("data: text that cannot be read is named") {
  const TemporaryFolder folder;
  const auto refused = [&](const fs::path& path) {
    return message_of<InvalidArgument>([&] { open_text({path}); });
  };
  CHECK(contains(refused(folder.path / "missing.txt"), "missing.txt': No such file"));
  CHECK(contains(refused(folder.write("empty.txt", "")), "empty.txt' is empty"));
  fs::create_directories(folder.path / "void/below");
  CHECK(contains(refused(folder.path / "void"), "void' holds no text"));
  CHECK(contains(refused("/dev/null"), "not a regular file"));
  CHECK(contains(message_of<InvalidArgument>([] { open_text({}); }), "no text"));
}

TEST_CASE("data: llm.c and nanoGPT files hold the same tokens") {
  const TemporaryFolder folder;
  const std::vector<std::uint16_t> tokens{50256, 0, 7, 65535 - 30000};
  const std::vector<std::int32_t> expected(tokens.begin(), tokens.end());
  CHECK(all(*open_tokens({folder.write_words("raw.bin", tokens)}, 50257).train) == expected);
  const fs::path with_header = folder.write_words("llmc.bin", llmc(20240520, 1, 4, tokens));
  CHECK(all(*open_tokens({with_header}, 50257).train) == expected);
  const Corpus both = open_tokens({with_header, folder.path / "raw.bin"}, 50257);
  CHECK(both.train->size() == 8);
}

TEST_CASE("data: a raw file that is longer than a header is raw") {
  const TemporaryFolder folder;
  std::vector<std::uint16_t> tokens(3000);
  std::iota(tokens.begin(), tokens.end(), std::uint16_t{5});
  CHECK(open_tokens({folder.write_words("raw.bin", tokens)}, 50257).train->size() == 3000);
}

TEST_CASE("data: malformed token files are named with what is wrong") {
  const TemporaryFolder folder;
  const auto refused = [&](const fs::path& path) {
    return message_of<InvalidArgument>([&] { open_tokens({path}, 50257); });
  };
  CHECK(contains(refused(folder.write_words("m", llmc(20240326, 3, 2, {1, 2}))), "magic 20240326"));
  CHECK(contains(refused(folder.write_words("v", llmc(20240520, 2, 2, {1, 2}))), "version 2"));
  CHECK(contains(refused(folder.write_words("t", llmc(20240520, 1, 3, {1, 2}))),
                 "truncated: its header says 3 tokens, 2 follow"));
  CHECK(contains(refused(folder.write_words("l", llmc(20240520, 1, 1, {1, 2}))), "damaged"));
  CHECK(contains(refused(folder.write_words("z", llmc(20240520, 1, 0, {}))), "is empty"));
  CHECK(contains(refused(folder.write("odd", "abc")), "odd number of bytes (3)"));
  CHECK(contains(refused(folder.write("nothing", "")), "is empty"));
  CHECK(contains(refused(folder.path), "Is a directory"));
  CHECK(contains(refused(folder.write_words("big.bin", {1, 2, 50257})),
                 "big.bin: token 50257 at position 2"));
}

TEST_CASE("data: a token beyond the vocabulary deep in a file is found when it is read") {
  const TemporaryFolder folder;
  std::vector<std::uint16_t> tokens(1 << 21, 3);
  tokens[(1 << 21) - 7] = 300;
  const Corpus corpus = open_tokens({folder.write_words("deep.bin", tokens)}, 256);
  std::vector<std::int32_t> read(8);
  corpus.train->copy(100, read);
  const std::string message =
      message_of<InvalidArgument>([&] { corpus.train->copy((1 << 21) - 8, read); });
  CHECK(contains(message, "deep.bin: token 300 at position 2097145"));
}
