// Starting another program as a child that can't outlive this process.
//
// Ties: the kernel kills the child with SIGKILL, which a stopped process can't put off either, when the thread that
// started it ends, however it ends. Programs that the child starts in turn aren't tied, but they are in its process
// group, which KillGroup ends.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "tools/launch/file.h"

namespace sluice::tools {

struct ChildOptions {
  std::vector<std::string> command;      // a path, or a name to look for in PATH, and its arguments
  std::vector<std::string> environment;  // NAME=VALUE, in place of or beside this process's own
  bool has_input = false;                // Child::input; else its standard input is empty
  bool shares_output = false;            // its standard output is this process's; else Child::output
  bool says_more = false;                // Child::more, which is kMoreFile there
};

// The descriptor of the child at the other end of Child::more.
inline constexpr int kMoreFile = 3;

// The ends of its pipes; they don't block.
struct Child {
  pid_t pid = -1;
  File input;   // to be written
  File output;  // to be read, like the rest
  File error;
  File more;
};

// The child has a process group of its own: the terminal's signals reach only this process. NOT_FOUND and others: the
// program couldn't be started, with the system's reason.
absl::StatusOr<Child> StartChild(const ChildOptions& options);

// Sends a signal to the child and to what it has started. REQUIRES: the child hasn't been reaped.
void SignalGroup(pid_t child, int signal);

}  // namespace sluice::tools
