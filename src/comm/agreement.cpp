#include "comm/agreement.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <exception>
#include <filesystem>
#include <new>

#include "ashlar/collective_failure.hpp"

namespace ashlar {
namespace detail {
namespace {

std::uint64_t hash(std::string_view text) {
  std::uint64_t hash = 0xcbf29ce484222325U;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3U;
  return hash;
}

/// Lengths in front, so that entries cannot run into each other.
std::string join(std::span<const std::string> entries) {
  std::string text;
  for (const std::string& entry : entries) text += fmt::format("{}\n{}", entry.size(), entry);
  return text;
}

std::vector<std::string> take_apart(const std::string& text) {
  std::vector<std::string> entries;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t line = text.find('\n', at);
    const std::size_t length = std::stoul(text.substr(at, line - at));
    entries.push_back(text.substr(line + 1, length));
    at = line + 1 + length;
  }
  return entries;
}

std::string_view entry_of(const std::vector<std::string>& entries, std::size_t index) {
  return index < entries.size() ? std::string_view(entries[index]) : "(nothing)";
}

/// "rank 0 has 'a', rank 2 has 'b'": rank 0's entry and the lowest rank's that differs from it.
std::string first_difference(std::string_view what,
                             const std::vector<std::vector<std::string>>& ranks) {
  std::size_t longest = 0;
  for (const auto& entries : ranks) longest = std::max(longest, entries.size());
  for (std::size_t i = 0; i < longest; ++i)
    for (std::size_t r = 1; r < ranks.size(); ++r)
      if (entry_of(ranks[r], i) != entry_of(ranks[0], i))
        return fmt::format("ranks disagree on {}, entry {}: rank 0 has '{}', rank {} has '{}'",
                           what, i, entry_of(ranks[0], i), r, entry_of(ranks[r], i));
  return {};
}

template <typename Failure>
bool is(const std::exception& failure) {
  return dynamic_cast<const Failure*>(&failure) != nullptr;
}

template <typename Failure>
class OnAllRanks final : public Failure, public CollectiveFailure {
 public:
  using Failure::Failure;
};

/// A failure's class as one character, which travels before its text.
char tag_of(const std::exception& failure) {
  if (is<CorruptCheckpoint>(failure)) return 'c';
  if (is<InvalidArgument>(failure)) return 'i';
  if (is<std::filesystem::filesystem_error>(failure)) return 'i';  // of a path that was given
  if (is<OutOfMemory>(failure)) return 'm';
  if (is<CommunicationError>(failure)) return 'r';
  if (is<CudaError>(failure)) return 'g';
  return 'e';
}

[[noreturn]] void throw_tagged(const std::string& verdict) {
  const std::string text = verdict.substr(1);
  switch (verdict[0]) {
    case 'c':
      throw OnAllRanks<CorruptCheckpoint>(text);
    case 'i':
      throw OnAllRanks<InvalidArgument>(text);
    case 'm':
      throw OnAllRanks<OutOfMemory>(text);
    case 'r':
      throw OnAllRanks<CommunicationError>(text);
    case 'g':
      throw OnAllRanks<CudaError>(text);
    default:
      throw OnAllRanks<Error>(text);
  }
}

}  // namespace

std::vector<std::string> exchange(Communicator& communicator, std::string_view text,
                                  std::string_view label) {
  const auto size = static_cast<std::size_t>(communicator.size());
  std::vector<std::int64_t> sent(size, static_cast<std::int64_t>(text.size()));
  std::vector<std::int64_t> lengths(size);
  const auto count = static_cast<std::int64_t>(size);
  communicator
      .all_to_all({sent.data(), DType::i64, {count}}, {lengths.data(), DType::i64, {count}}, label)
      .wait();
  const std::int64_t longest = *std::max_element(lengths.begin(), lengths.end());
  const auto stride = static_cast<std::size_t>(longest);
  std::string copies(size * stride, '\0');
  std::string received(size * stride, '\0');
  for (std::size_t r = 0; r < size; ++r)
    std::memcpy(copies.data() + r * stride, text.data(), text.size());
  communicator
      .all_to_all({copies.data(), DType::u8, {count * longest}},
                  {received.data(), DType::u8, {count * longest}}, label)
      .wait();
  std::vector<std::string> texts;
  for (std::size_t r = 0; r < size; ++r)
    texts.push_back(received.substr(r * stride, static_cast<std::size_t>(lengths[r])));
  return texts;
}

}  // namespace detail

void require_agreement(Communicator& communicator, std::string_view what,
                       std::span<const std::string> entries) {
  const std::string mine = detail::join(entries);
  const std::string digest = fmt::format("{:016x} {:016x}", detail::hash(mine), mine.size());
  const std::vector<std::string> digests = detail::exchange(communicator, digest, what);
  if (std::all_of(digests.begin(), digests.end(), [&](const auto& d) { return d == digests[0]; }))
    return;
  std::vector<std::vector<std::string>> ranks;
  for (const std::string& text : detail::exchange(communicator, mine, what))
    ranks.push_back(detail::take_apart(text));
  throw detail::OnAllRanks<InvalidArgument>(detail::first_difference(what, ranks));
}

void collectively(Communicator& communicator, const std::function<void()>& check) {
  std::string verdict;  // empty: all is well
  try {
    check();
  } catch (const std::bad_alloc&) {
    verdict = fmt::format("mrank {}: out of memory: the system refused an allocation",
                          communicator.rank());
  } catch (const std::exception& failure) {
    verdict = detail::tag_of(failure) + std::string(failure.what());
  }
  for (const std::string& text : detail::exchange(communicator, verdict, "collectively"))
    if (!text.empty()) detail::throw_tagged(text);
}

}  // namespace ashlar
