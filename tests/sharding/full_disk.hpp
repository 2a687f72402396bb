// A disk that fills up: while it lives, writes past a size fail as they do there.
#pragma once

#include <sys/resource.h>

#include <csignal>

namespace ashlar::test {

class FullDisk {
 public:
  explicit FullDisk(rlim_t file_bytes) {
    std::signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit small{file_bytes, before_.rlim_max};
    setrlimit(RLIMIT_FSIZE, &small);
  }
  ~FullDisk() { setrlimit(RLIMIT_FSIZE, &before_); }
  FullDisk(const FullDisk&) = delete;
  FullDisk& operator=(const FullDisk&) = delete;

 private:
  rlimit before_{};
};

}  // namespace ashlar::test
