#include "tools/measure/process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
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

// The child's part, after fork(): only calls that are safe there. It doesn't outlive its parent.
[[noreturn]] void Become(char* const* words, int said, int failure) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  const int nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC);
  if (nowhere >= 0 && dup2(nowhere, STDOUT_FILENO) >= 0 && dup2(said, STDERR_FILENO) >= 0) execv(words[0], words);
  const int error = errno;
  [[maybe_unused]] const ssize_t written = write(failure, &error, sizeof error);
  _exit(127);
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
  int said_ends[2], failure_ends[2];
  if (pipe2(said_ends, O_CLOEXEC) != 0 || pipe2(failure_ends, O_CLOEXEC) != 0) {
    return absl::ErrnoToStatus(errno, "cannot make a pipe");
  }
  const pid_t child = fork();
  if (child == 0) Become(words.data(), said_ends[1], failure_ends[1]);
  const int fork_error = errno;
  close(said_ends[1]);
  close(failure_ends[1]);
  int error = child < 0 ? fork_error : 0;
  // Nothing comes where the program has begun.
  while (child > 0 && read(failure_ends[0], &error, sizeof error) < 0 && errno == EINTR) {
  }
  const std::string said = ReadTail(said_ends[0]);
  close(failure_ends[0]);
  close(said_ends[0]);
  int status = 0;
  while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (error != 0) return absl::ErrnoToStatus(error, absl::StrCat("cannot run ", program));
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(program,
                                                    WIFSIGNALED(status)
                                                        ? absl::StrCat(" was ended by signal ", WTERMSIG(status))
                                                        : absl::StrCat(" failed with code ", WEXITSTATUS(status)),
                                                    ": ", absl::StripAsciiWhitespace(said)));
}

}  // namespace sluice::tools
