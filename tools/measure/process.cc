#include "tools/measure/process.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <fstream>
#include <sstream>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

extern char** environ;

namespace sluice::tools {
namespace {

constexpr size_t kErrorBytes = 2000;  // of what a program says when it fails

// All that is written until the other end closes; of that the end.
std::string ReadTail(int file) {
  std::string text;
  std::array<char, 4096> piece;
  for (ssize_t bytes; (bytes = read(file, piece.data(), piece.size())) != 0;) {
    if (bytes < 0 && errno != EINTR) break;
    if (bytes > 0) text.append(piece.data(), static_cast<size_t>(bytes));
    if (text.size() > 2 * kErrorBytes) text.erase(0, text.size() - kErrorBytes);
  }
  return text;
}

}  // namespace

ProcessMemory MemoryOfProcess() {
  ProcessMemory memory;
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    std::istringstream words(line);
    std::string name;
    int64_t kilobytes = 0;
    words >> name >> kilobytes;
    if (name == "VmRSS:") memory.bytes = kilobytes * 1024;
    if (name == "VmHWM:") memory.peak_bytes = kilobytes * 1024;
  }
  return memory;
}

double AgeOfProcess() {
  std::ifstream file("/proc/self/stat");
  std::string text;
  std::getline(file, text);
  // The program's name, in parentheses, may hold anything; the start is the 20th word after it, in ticks since the
  // boot.
  const size_t name_end = text.rfind(')');
  if (name_end == std::string::npos) return 0;
  const std::vector<std::string> words =
      absl::StrSplit(absl::StripAsciiWhitespace(absl::string_view(text).substr(name_end + 1)), ' ');
  double ticks = 0;
  timespec now = {};
  if (words.size() < 20 || !absl::SimpleAtod(words[19], &ticks) || clock_gettime(CLOCK_BOOTTIME, &now) != 0) return 0;
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec) -
         ticks / static_cast<double>(sysconf(_SC_CLK_TCK));
}

absl::Status RunProgram(const std::string& program, const std::vector<std::string>& arguments) {
  std::vector<char*> words = {const_cast<char*>(program.c_str())};
  for (const std::string& argument : arguments) words.push_back(const_cast<char*>(argument.c_str()));
  words.push_back(nullptr);
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return absl::ErrnoToStatus(errno, "cannot make a pipe");
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, ends[1], STDERR_FILENO);
  pid_t child = 0;
  const int error = posix_spawn(&child, program.c_str(), &actions, nullptr, words.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  close(ends[1]);
  if (error != 0) {
    close(ends[0]);
    return absl::ErrnoToStatus(error, absl::StrCat("cannot run ", program));
  }
  const std::string said = ReadTail(ends[0]);
  close(ends[0]);
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(program,
                                                    WIFSIGNALED(status)
                                                        ? absl::StrCat(" was ended by signal ", WTERMSIG(status))
                                                        : absl::StrCat(" failed with code ", WEXITSTATUS(status)),
                                                    ": ", absl::StripAsciiWhitespace(said)));
}

}  // namespace sluice::tools
