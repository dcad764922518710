#include "tools/launch/child.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"

extern char** environ;

namespace sluice::tools {
namespace {

struct Pipe {
  File to_read;
  File to_write;
};

absl::StatusOr<Pipe> MakePipe() {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return absl::ErrnoToStatus(errno, "cannot make a pipe");
  return Pipe{.to_read = File(ends[0]), .to_write = File(ends[1])};
}

struct Pipes {
  Pipe input, output, error, more, failure;
};

absl::StatusOr<Pipes> MakePipes(const ChildOptions& options) {
  Pipes pipes;
  if (options.has_input) {
    ASSIGN_OR_RETURN(pipes.input, MakePipe());
  }
  if (!options.shares_output) {
    ASSIGN_OR_RETURN(pipes.output, MakePipe());
  }
  if (options.says_more) {
    ASSIGN_OR_RETURN(pipes.more, MakePipe());
  }
  ASSIGN_OR_RETURN(pipes.error, MakePipe());
  ASSIGN_OR_RETURN(pipes.failure, MakePipe());
  return pipes;
}

std::string_view NameOf(std::string_view variable) { return variable.substr(0, variable.find('=')); }

// This process's environment with the additions in place of what has their names.
std::vector<char*> Environment(const std::vector<std::string>& additions) {
  std::vector<char*> variables;
  for (const std::string& addition : additions) variables.push_back(const_cast<char*>(addition.c_str()));
  for (char** variable = environ; *variable != nullptr; ++variable) {
    bool replaced = false;
    for (const std::string& addition : additions) replaced |= NameOf(addition) == NameOf(*variable);
    if (!replaced) variables.push_back(*variable);
  }
  variables.push_back(nullptr);
  return variables;
}

// As in the program that a shell starts, whatever this process blocks or ignores; but a child that isn't in the
// terminal's foreground may write to it.
void ResetSignals() {
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGPIPE, SIGCHLD}) ::signal(signal, SIG_DFL);
  ::signal(SIGTTOU, SIG_IGN);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
}

// `otherwise` is duplicated if the file isn't open.
bool Put(const File& file, int otherwise, int place) {
  const int from = file.is_open() ? file.get() : otherwise;
  if (from == place) return fcntl(place, F_SETFD, 0) == 0;
  return dup2(from, place) == place;
}

// The child's part, after fork(): only calls that are safe there.
[[noreturn]] void Become(char* const* command, char* const* variables, const Pipes& pipes, pid_t parent) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(127);  // it ended before the line above
  setpgid(0, 0);
  ResetSignals();
  const int nothing = open("/dev/null", O_RDONLY | O_CLOEXEC);
  if (nothing >= 0 && Put(pipes.input.to_read, nothing, STDIN_FILENO) &&
      Put(pipes.output.to_write, STDOUT_FILENO, STDOUT_FILENO) && Put(pipes.error.to_write, -1, STDERR_FILENO) &&
      (!pipes.more.to_write.is_open() || Put(pipes.more.to_write, -1, kMoreFile))) {
    execvpe(command[0], command, variables);
  }
  const int error = errno;
  [[maybe_unused]] const ssize_t written = write(pipes.failure.to_write.get(), &error, sizeof error);
  _exit(127);
}

// Moves what must stay open across the child's kMoreFile above it.
absl::Status KeepClear(File* file) {
  if (file->get() > kMoreFile) return absl::OkStatus();
  File moved(fcntl(file->get(), F_DUPFD_CLOEXEC, kMoreFile + 1));
  if (!moved.is_open()) return absl::ErrnoToStatus(errno, "cannot duplicate a pipe");
  *file = std::move(moved);
  return absl::OkStatus();
}

// What kept the program from starting; 0: nothing.
int StartFailure(Pipe failure) {
  failure.to_write.Close();
  int error = 0;
  while (read(failure.to_read.get(), &error, sizeof error) < 0 && errno == EINTR) {
  }
  return error;
}

File Ours(File file) {
  if (file.is_open()) fcntl(file.get(), F_SETFL, fcntl(file.get(), F_GETFL) | O_NONBLOCK);
  return file;
}

}  // namespace

absl::StatusOr<Child> StartChild(const ChildOptions& options) {
  std::vector<char*> command;
  for (const std::string& word : options.command) command.push_back(const_cast<char*>(word.c_str()));
  command.push_back(nullptr);
  const std::vector<char*> variables = Environment(options.environment);
  ASSIGN_OR_RETURN(Pipes pipes, MakePipes(options));
  RETURN_IF_ERROR(KeepClear(&pipes.failure.to_write));
  const pid_t parent = getpid();
  const pid_t child = fork();
  if (child == 0) Become(command.data(), variables.data(), pipes, parent);
  if (child < 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot start ", options.command[0]));
  if (const int error = StartFailure(std::move(pipes.failure)); error != 0) {
    waitpid(child, nullptr, 0);
    return absl::ErrnoToStatus(error, absl::StrCat("cannot run ", options.command[0]));
  }
  return Child{.pid = child,
               .input = Ours(std::move(pipes.input.to_write)),
               .output = Ours(std::move(pipes.output.to_read)),
               .error = Ours(std::move(pipes.error.to_read)),
               .more = Ours(std::move(pipes.more.to_read))};
}

void SignalGroup(pid_t child, int signal) { kill(-child, signal); }

}  // namespace sluice::tools
