#include "memory/control_group.hpp"

#include <algorithm>
#include <fstream>
#include <optional>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

namespace ashlar::detail {
namespace {

namespace fs = std::filesystem;

/// Whether a comma-separated list has a word.
bool lists(std::string_view list, std::string_view word) {
  while (!list.empty()) {
    const std::size_t comma = std::min(list.find(','), list.size());
    if (list.substr(0, comma) == word) return true;
    list.remove_prefix(std::min(comma + 1, list.size()));
  }
  return false;
}

/// A hierarchy of groups as this process sees it.
struct Mount {
  fs::path root;  // the group that is mounted
  fs::path point;
  bool unified = false;     // version 2
  std::string controllers;  // version 1
};

std::vector<Mount> mounts(const fs::path& root) {
  std::vector<Mount> found;
  std::ifstream file(root / "proc/self/mountinfo");
  for (std::string line; std::getline(file, line);) {
    const std::size_t dash = line.find(" - ");
    if (dash == std::string::npos) continue;
    std::istringstream left(line.substr(0, dash)), right(line.substr(dash + 3));
    std::string skipped, group, point, type, source, options;
    left >> skipped >> skipped >> skipped >> group >> point;
    right >> type >> source >> options;
    if (type == "cgroup" || type == "cgroup2")
      found.push_back({group, point, type == "cgroup2", options});
  }
  return found;
}

/// The folder of `group` and those of its parents that are mounted. A group from outside the mount
/// (a container's view) is the mounted one.
void add_folders(const Mount& mount, const fs::path& group, const fs::path& root,
                 std::vector<fs::path>& folders) {
  const fs::path below = group.lexically_relative(mount.root);
  const fs::path point = root / mount.point.relative_path();
  if (!below.empty() && *below.begin() != ".." && below != ".")
    for (fs::path part = below; !part.empty(); part = part.parent_path())
      folders.push_back(point / part);
  folders.push_back(point);
}

/// Where the limits of a controller on this process stand, whichever version it is under.
std::vector<fs::path> folders_of(std::string_view controller, const fs::path& root) {
  std::vector<fs::path> folders;
  const std::vector<Mount> all = mounts(root);
  std::ifstream file(root / "proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {  // "4:memory:/a/b", "0::/a/b"
    const std::size_t first = line.find(':');
    const std::size_t second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string_view controllers =
        std::string_view(line).substr(first + 1, second - first - 1);
    for (const Mount& mount : all)
      if (controllers.empty() ? mount.unified
                              : !mount.unified && lists(controllers, controller) &&
                                    lists(mount.controllers, controller))
        add_folders(mount, line.substr(second + 1), root, folders);
  }
  return folders;
}

/// The first number of a file; empty for "max" and for a file that is not there.
std::optional<std::int64_t> number(const fs::path& path) {
  std::ifstream file(path);
  std::int64_t value = 0;
  return file >> value ? std::optional(value) : std::nullopt;
}

/// Of a file of "key number" lines; 0 when it has no such key.
std::int64_t value_of(const fs::path& path, std::string_view wanted) {
  std::ifstream file(path);
  std::string key;
  for (std::int64_t value = 0; file >> key >> value;) {
    if (key == wanted) return value;
    file.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
  }
  return 0;
}

std::optional<std::int64_t> limit_of(const fs::path& group) {
  const auto limit = number(group / "memory.max");
  return limit ? limit : number(group / "memory.limit_in_bytes");
}

std::int64_t usage_of(const fs::path& group) {
  if (const auto usage = number(group / "memory.current"))
    return *usage - value_of(group / "memory.stat", "inactive_file");
  return number(group / "memory.usage_in_bytes").value_or(0) -
         value_of(group / "memory.stat", "total_inactive_file");
}

double quota_of(const fs::path& group) {
  constexpr double kNone = std::numeric_limits<double>::infinity();
  std::ifstream file(group / "cpu.max");
  double quota = 0, period = 0;
  if (file >> quota >> period && period > 0) return quota / period;
  const auto old_quota = number(group / "cpu.cfs_quota_us");
  const auto old_period = number(group / "cpu.cfs_period_us");
  if (!old_quota || !old_period || *old_quota <= 0 || *old_period <= 0) return kNone;
  return static_cast<double>(*old_quota) / static_cast<double>(*old_period);
}

}  // namespace

std::int64_t available_bytes(const fs::path& root) {
  const std::int64_t machine = value_of(root / "proc/meminfo", "MemAvailable:");
  std::int64_t available = machine > 0 ? machine * 1024 : kNoLimit;
  for (const fs::path& group : folders_of("memory", root)) {
    const auto limit = limit_of(group);
    if (limit)
      available =
          std::min(available, *limit - std::clamp<std::int64_t>(usage_of(group), 0, *limit));
  }
  return available;
}

std::int64_t memory_limit(const fs::path& root) {
  std::int64_t least = kNoLimit;
  for (const fs::path& group : folders_of("memory", root))
    least = std::min(least, limit_of(group).value_or(kNoLimit));
  return least;
}

double core_quota(const fs::path& root) {
  double least = std::numeric_limits<double>::infinity();
  for (const fs::path& group : folders_of("cpu", root)) least = std::min(least, quota_of(group));
  return least;
}

}  // namespace ashlar::detail
