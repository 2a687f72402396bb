// Tokens to train on: memory-mapped files or random numbers behind one interface, and which windows
// of them each sample of each step is. Nothing depends on the order of execution, so resuming needs
// the step and nothing else.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace ashlar {

/// A sequence of token ids. Immutable; `copy` may be called from several threads.
class TokenSource {
 public:
  virtual ~TokenSource() = default;
  /// For messages: a path, "a.txt and 3 more files", "synthetic tokens".
  virtual const std::string& name() const = 0;
  /// Tokens.
  virtual std::int64_t size() const = 0;
  /// tokens[i] = token begin + i.
  /// @throws InvalidArgument when [begin, begin + tokens.size()) is not within [0, size()), or a
  /// token is not below the vocabulary that the source was opened with (names file and position).
  virtual void copy(std::int64_t begin, std::span<std::int32_t> tokens) const = 0;
};

/// What is trained on and what is held out; `validation` is null when nothing is.
struct Corpus {
  std::unique_ptr<TokenSource> train;
  std::unique_ptr<TokenSource> validation;
};

/// How a corpus is divided. Of several files whole ones are held out, chosen by a hash of `seed`
/// and their path below the folder named, so that about `fraction` of the tokens (at least one
/// file, never all) is held out, the same on every machine. Of a single file it is the tail.
struct Holdout {
  double fraction = 0;  // of the tokens, [0, 1); 0 holds nothing out
  std::uint64_t seed = 0;
};

/// Bytes of files and folders (all files below, in the order of their paths; a file reached twice
/// counts once), one token per byte, end to end. Files stay mapped, nothing is read ahead of use.
/// @param vocabulary tokens are below it: 256 for byte-level models.
/// @throws InvalidArgument naming the path: not there, not readable, empty, a folder without text.
Corpus open_text(std::span<const std::filesystem::path> paths, const Holdout& holdout = {},
                 std::int64_t vocabulary = 256);

/// Files of uint16 tokens, in the order given: llm.c's (header of 256 int32: magic 20240520,
/// version 1, number of tokens) or nanoGPT's (no header). The start of each file is checked against
/// the vocabulary here, the rest when it is read.
/// @throws InvalidArgument naming the file: not there, not readable, empty, another magic or
/// version, truncated, or the position of a token that is not below `vocabulary`.
Corpus open_tokens(std::span<const std::filesystem::path> paths, std::int64_t vocabulary,
                   const Holdout& holdout = {});

/// Independent uniform tokens in [0, vocabulary): a function of (seed, position).
std::unique_ptr<TokenSource> synthetic_tokens(std::int64_t size, std::int64_t vocabulary,
                                              std::uint64_t seed);

/// @throws InvalidArgument naming source, tokens found and tokens needed when the source holds less
/// than one window of `window` tokens (a sequence and the token after it).
void require_window(const TokenSource& source, std::int64_t window);

/// Which window a sample is: uniform over all windows of the source, with replacement. A pure
/// function of (seed, step, micro-batch, global sample), equal on every rank.
class Sampler {
 public:
  /// @throws InvalidArgument as require_window.
  Sampler(const TokenSource& source, std::int64_t window, std::uint64_t seed);
  /// First token of the window of global sample `sample` (rank r of a batch of B per rank draws
  /// samples r B .. r B + B - 1 of each micro-batch).
  std::int64_t start(std::int64_t step, std::int64_t micro_batch, std::int64_t sample) const;

 private:
  std::uint64_t starts_;
  std::uint64_t seed_;
};

/// A fixed set of windows for validation: at most `most`, evenly spread, and not overlapping but
/// for the one token that ends a window and starts the next. @throws InvalidArgument as
/// require_window.
std::vector<std::int64_t> validation_windows(const TokenSource& source, std::int64_t window,
                                             std::int64_t most);

/// One sequence from position `begin`: input = tokens [begin, begin + T), target = the same one
/// later.
/// @param input, target T = their common length.
void copy_sequence(const TokenSource& source, std::int64_t begin, std::span<std::int32_t> input,
                   std::span<std::int32_t> target);

}  // namespace ashlar
