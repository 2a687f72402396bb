// Limits of control groups, on trees as kernels of either version show them.
#include <doctest/doctest.h>

#include <cmath>

#include "ashlar/memory_resource.hpp"
#include "memory/control_group.hpp"
#include "support/temporary_folder.hpp"

using namespace ashlar;

namespace {

constexpr std::int64_t kMiB = 1 << 20;

/// A machine with 1000 MiB to take.
struct Machine {
  TemporaryFolder folder;
  Machine() { folder.write("proc/meminfo", "MemTotal: 9 kB\nMemAvailable:  1024000 kB\n"); }

  void groups(std::string_view text) const { folder.write("proc/self/cgroup", text); }
  void mounts(std::string_view text) const { folder.write("proc/self/mountinfo", text); }
  void set(const std::string& group, const std::string& file, const std::string& text) const {
    folder.write("sys/fs/cgroup/" + group + "/" + file, text + "\n");
  }
  void memory(const std::string& group, std::int64_t limit, std::int64_t used,
              std::int64_t cache) const {
    set(group, "memory.max", std::to_string(limit * kMiB));
    set(group, "memory.current", std::to_string(used * kMiB));
    set(group, "memory.stat",
        "anon 1\nfile 2\ninactive_file " + std::to_string(cache * kMiB) + "\nactive_file 7");
  }
  void old_memory(const std::string& group, std::int64_t limit, std::int64_t used,
                  std::int64_t cache) const {
    set(group, "memory.limit_in_bytes", std::to_string(limit * kMiB));
    set(group, "memory.usage_in_bytes", std::to_string(used * kMiB));
    set(group, "memory.stat",
        "inactive_file 3\ntotal_inactive_file " + std::to_string(cache * kMiB));
  }
  std::int64_t available() const { return detail::available_bytes(folder.path) / kMiB; }
  std::int64_t limit() const { return detail::memory_limit(folder.path) / kMiB; }
  double cores() const { return detail::core_quota(folder.path); }
};

const std::string kUnified = "35 24 0:30 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n";

}  // namespace

TEST_CASE("control groups: without limits the machine's own number counts") {
  const Machine machine;
  CHECK(machine.available() == 1000);
  CHECK(std::isinf(machine.cores()));
  machine.groups("0::/a\n");
  machine.mounts(kUnified);
  machine.set("a", "memory.max", "max");
  machine.set("a", "memory.current", "12345");
  machine.set("a", "cpu.max", "max 100000");
  CHECK(machine.available() == 1000);
  CHECK(std::isinf(machine.cores()));
  CHECK(detail::memory_limit(machine.folder.path) == detail::kNoLimit);
  const TemporaryFolder nothing;
  CHECK(detail::available_bytes(nothing.path) == detail::kNoLimit);
}

TEST_CASE("control groups: version 2, the tightest of the group and its parents") {
  const Machine machine;
  machine.groups("0::/a/b\n");
  machine.mounts("30 1 0:28 / / rw - overlay overlay rw\n" + kUnified);
  machine.memory("a/b", 600, 200, 50);
  machine.set("a/b", "cpu.max", "250000 100000");
  CHECK(machine.available() == 450);
  CHECK(machine.cores() == 2.5);
  machine.memory("a", 500, 400, 10);
  machine.set("a", "cpu.max", "150000 100000");
  CHECK(machine.available() == 110);
  CHECK(machine.limit() == 500);
  CHECK(machine.cores() == 1.5);
  machine.memory("", 90, 30, 0);  // a container's root has its limit too
  CHECK(machine.available() == 60);
  machine.memory("a/b", 600, 700, 0);  // over its limit for a moment
  CHECK(machine.available() == 0);
  machine.memory("a/c", 1, 1, 0);  // somebody else's
  CHECK(machine.limit() == 90);
}

TEST_CASE("control groups: version 1, also where a container shows the host's path") {
  const Machine machine;
  machine.groups("4:memory:/docker/x\n3:cpu,cpuacct:/docker/x\n0::/docker/x\n");
  machine.mounts(
      "31 23 0:29 /docker/x /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu,cpuacct\n"
      "32 23 0:32 /docker/x /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n"
      "33 23 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n");
  machine.old_memory("memory", 300, 100, 20);
  machine.set("cpu", "cpu.cfs_quota_us", "300000");
  machine.set("cpu", "cpu.cfs_period_us", "100000");
  CHECK(machine.available() == 220);
  CHECK(machine.limit() == 300);
  CHECK(machine.cores() == 3);
  machine.groups("4:memory:/docker/x/deep\n3:cpu,cpuacct:/docker/x\n");
  machine.old_memory("memory/deep", 250, 245, 0);
  CHECK(machine.available() == 5);
  machine.set("cpu", "cpu.cfs_quota_us", "-1");
  CHECK(std::isinf(machine.cores()));
  machine.groups("4:memory:/elsewhere\n");  // moved after the container's start
  CHECK(machine.available() == 220);
}

TEST_CASE("control groups: this machine says something that can be") {
  CHECK(available_host_bytes() > kMiB);
  CHECK(available_host_bytes() <= detail::memory_limit("/"));
  CHECK(detail::core_quota("/") > 0);
}
