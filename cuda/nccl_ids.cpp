#include "cuda/nccl_ids.hpp"

#include <fmt/format.h>

#include <cstring>
#include <fstream>
#include <optional>
#include <random>
#include <sstream>
#include <string>
#include <thread>

namespace ashlar::cuda {
namespace {

TensorView bytes_of(ncclUniqueId& id) { return {&id, DType::u8, {NCCL_UNIQUE_ID_BYTES}}; }

/// The file's whole text; nothing when it is not there.
std::optional<std::string> read(const std::filesystem::path& file) {
  std::ifstream stream(file, std::ios::binary);
  if (!stream) return std::nullopt;
  std::ostringstream text;
  text << stream.rdbuf();
  return std::move(text).str();
}

/// Whoever reads the file sees all of it.
void write(const std::filesystem::path& file, const std::string& text) {
  const std::filesystem::path unfinished = file.string() + ".new";
  std::ofstream stream(unfinished, std::ios::binary | std::ios::trunc);
  stream << text;
  stream.close();
  if (!stream) throw CommunicationError(fmt::format("{} cannot be written", unfinished.string()));
  std::filesystem::rename(unfinished, file);
}

std::string draw() {
  std::random_device random;
  return fmt::format("{:08x}{:08x}{:08x}{:08x}", random(), random(), random(), random());
}

}  // namespace

void CommunicatorIds::give(int destination, const ncclUniqueId& id) {
  ncclUniqueId copy = id;
  Work work;
  {
    const std::scoped_lock lock(mutex_);
    work = ranks_->send(bytes_of(copy), destination, "NCCL identifier");
  }
  work.wait();
}

ncclUniqueId CommunicatorIds::take(int source) {
  ncclUniqueId id{};
  Work work;
  {
    const std::scoped_lock lock(mutex_);
    work = ranks_->recv(bytes_of(id), source, "NCCL identifier");
  }
  work.wait();
  return id;
}

std::unique_ptr<NcclIds> CommunicatorIds::split(int color, int key, int) {
  const std::scoped_lock lock(mutex_);
  return std::make_unique<CommunicatorIds>(ranks_->split(color, key));
}

FileIds::FileIds(std::filesystem::path path, int rank, std::chrono::milliseconds timeout)
    : path_(std::move(path)), rank_(rank), timeout_ms_(timeout.count()) {
  const std::filesystem::path folder = std::filesystem::absolute(path_).parent_path();
  if (!std::filesystem::is_directory(folder))
    throw InvalidArgument(
        fmt::format("ranks cannot meet in {}: there is no such folder", folder.string()));
}

std::filesystem::path FileIds::answer(int from, int to) const {
  return fmt::format("{}.{}-{}", path_.string(), from, to);
}
std::filesystem::path FileIds::question(int from, int to) const {
  return answer(from, to).string() + ".asked";
}

template <typename Ready>
void FileIds::until(const Ready& ready, int other) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(timeout_ms_.load());
  while (!ready()) {
    if (aborted_) throw CommunicationError("the group failed before");
    if (std::chrono::steady_clock::now() > end)
      throw CommunicationError(
          fmt::format("rank {} did not come to {} within {} s; it is slow, or "
                      "was given another path",
                      other, path_.string(), static_cast<double>(timeout_ms_.load()) / 1000.0));
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

// The reader removes both files, the question last.
void FileIds::give(int destination, const ncclUniqueId& id) {
  std::optional<std::string> answered;
  const auto taken = [&] {
    const std::optional<std::string> asked = read(question(rank_, destination));
    if (!asked) return answered.has_value();
    if (asked == answered) return false;
    write(answer(rank_, destination), *asked + std::string(id.internal, NCCL_UNIQUE_ID_BYTES));
    answered = asked;
    return false;
  };
  until(taken, destination);
}

ncclUniqueId FileIds::take(int source) {
  const std::string number = draw();
  write(question(source, rank_), number);
  ncclUniqueId id{};
  const auto answered = [&] {
    const std::optional<std::string> text = read(answer(source, rank_));
    if (!text || text->size() != number.size() + NCCL_UNIQUE_ID_BYTES || !text->starts_with(number))
      return false;
    std::memcpy(id.internal, text->data() + number.size(), NCCL_UNIQUE_ID_BYTES);
    return true;
  };
  until(answered, source);
  std::filesystem::remove(answer(source, rank_));
  std::filesystem::remove(question(source, rank_));
  return id;
}

std::unique_ptr<NcclIds> FileIds::split(int color, int, int rank) {
  return std::make_unique<FileIds>(fmt::format("{}.{}.{}", path_.string(), ++splits_, color), rank,
                                   std::chrono::milliseconds(timeout_ms_.load()));
}

}  // namespace ashlar::cuda
