// Programs run as a user runs them: words in, exit code and both outputs back. Whatever a test
// starts is gone, with its children, when the test ends.
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

/// How many times longer a program may take than it does without sanitizers.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr int kPatience = 5;
#else
inline constexpr int kPatience = 1;
#endif

using Words = std::vector<std::string>;

struct Finished {
  int code = 0;  // 128 + signal when killed
  bool timed_out = false;
  std::string out, err;
};

/// The processes below `parent`, at any depth.
inline std::vector<pid_t> descendants(pid_t parent) {
  std::vector<pid_t> found;
  std::ifstream list("/proc/" + std::to_string(parent) + "/task/" + std::to_string(parent) +
                     "/children");
  for (pid_t child = 0; list >> child;) {
    found.push_back(child);
    for (const pid_t below : descendants(child)) found.push_back(below);
  }
  return found;
}

class Process {
 public:
  explicit Process(const Words& words)
      : out_(::memfd_create("out", 0)), err_(::memfd_create("err", 0)), pid_(::fork()) {
    if (pid_ < 0 || out_ < 0 || err_ < 0) throw std::runtime_error("cannot start " + words[0]);
    if (pid_ > 0) return;
    std::vector<char*> arguments;
    for (const std::string& word : words) arguments.push_back(const_cast<char*>(word.c_str()));
    arguments.push_back(nullptr);
    ::dup2(::open("/dev/null", O_RDONLY), STDIN_FILENO);
    ::dup2(out_, STDOUT_FILENO);
    ::dup2(err_, STDERR_FILENO);
    ::execvp(arguments[0], arguments.data());
    ::_exit(127);
  }
  ~Process() {
    if (pid_ > 0) end();
    ::close(out_);
    ::close(err_);
  }
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  pid_t pid() const { return pid_; }

  /// Waits for the error output to hold `what`. @return whether it did within `limit`.
  bool says(std::string_view what, std::chrono::milliseconds limit) const {
    const auto end_at = std::chrono::steady_clock::now() + limit;
    while (text(err_).find(what) == std::string::npos) {
      if (std::chrono::steady_clock::now() > end_at) return false;
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    return true;
  }

  /// Ends the program by force after `limit`.
  Finished wait(std::chrono::seconds limit = std::chrono::seconds(60 * kPatience)) {
    const auto end_at = std::chrono::steady_clock::now() + limit;
    Finished finished;
    int status = 0;
    while (::waitpid(pid_, &status, WNOHANG) == 0) {
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
      if (std::chrono::steady_clock::now() < end_at) continue;
      finished.timed_out = true;
      status = end();
      break;
    }
    pid_ = 0;
    finished.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    finished.out = text(out_);
    finished.err = text(err_);
    return finished;
  }

 private:
  int end() {
    for (const pid_t child : descendants(pid_)) ::kill(child, SIGKILL);
    ::kill(pid_, SIGKILL);
    int status = 0;
    ::waitpid(pid_, &status, 0);
    pid_ = 0;
    return status;
  }
  static std::string text(int file) {
    std::string all(static_cast<std::size_t>(::lseek(file, 0, SEEK_END)), '\0');
    all.resize(static_cast<std::size_t>(::pread(file, all.data(), all.size(), 0)));
    return all;
  }

  int out_, err_;
  pid_t pid_;
};

/// A rank below a launcher, by MPI's own variable: the innermost such process (its guardian has the
/// same environment).
inline pid_t rank_process(const Process& launcher, int rank) {
  const std::string wanted = "PMI_RANK=" + std::to_string(rank);
  pid_t found = 0;
  for (const pid_t child : descendants(launcher.pid())) {
    std::ifstream file("/proc/" + std::to_string(child) + "/environ");
    for (std::string variable; std::getline(file, variable, '\0');)
      if (variable == wanted) found = child;
  }
  if (found == 0) throw std::runtime_error("no such rank");
  return found;
}

/// The words of a command line without quotes.
inline Words words(const std::string& line) {
  std::istringstream stream(line);
  return {std::istream_iterator<std::string>(stream), {}};
}

inline Finished run(const std::string& line) { return Process(words(line)).wait(); }
