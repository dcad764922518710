// Children and their one end: their lines are passed on with a prefix, signals go to all of them, the first one that
// fails is remembered, and when it has failed the others have a while to end by themselves before they are killed.
//
// Threads: one, the one that made it, which the children are tied to (child.h). It may have no other threads that take
// signals. SIGINT, SIGTERM, SIGHUP and SIGCHLD are this object's while it lives.
#pragma once

#include <signal.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/time.h"
#include "base/world.h"
#include "tools/launch/child.h"
#include "tools/launch/file.h"
#include "tools/launch/line_splitter.h"
#include "tools/launch/outlet.h"

namespace sluice::tools {

struct SupervisedChild {
  ChildOptions start;
  std::string name;    // "process 2": in messages
  std::string prefix;  // "[2] ": before each of its lines
  // What is written to its input in place of sending it a signal; null: it gets the signal.
  std::function<std::string(int signal)> signal_text;
};

// How it ended, as a program would: `code` 0 and no cause, or the code of the first that failed (128 + the signal's
// number if it was killed), and why.
struct SupervisionResult {
  int code = 0;
  std::string cause;
  bool was_signalled = false;  // a person wanted it to end
};

struct SupervisorOptions {
  // Between the first failure, or the end of child 0, and the end of all.
  Nanoseconds grace = 5 * kSecond;
  // How long a child may be stopped (as by SIGSTOP) before that is a failure.
  Nanoseconds stopped_max = 10 * kSecond;
  int output = 1;  // the files that the children's lines go to
  int error = 2;
  // Gets a line from Child::more.
  std::function<void(size_t child, absl::string_view line)> on_more;
  // Gets a line of standard error; returns whether it was meant for it, and is not to be passed on.
  std::function<bool(size_t child, absl::string_view line)> on_error_line;
  // A file from which lines come; when it ends, everything ends at once. -1: none.
  int orders = -1;
  std::function<void(absl::string_view line)> on_order;
};

class Supervisor {
 public:
  // The world serves as a clock, and outlives it.
  static absl::StatusOr<std::unique_ptr<Supervisor>> Create(const World* world, SupervisorOptions options);
  // Kills what still runs.
  ~Supervisor();

  // Children have numbers in the order in which they are started. The first failure to start one counts as the failure
  // of a child, which ends all others; it has no number, and false is returned. The callbacks may call this and what
  // follows.
  bool Start(SupervisedChild child);
  // Writes to the child's input; what doesn't fit into its pipe is an error.
  absl::Status Tell(size_t child, absl::string_view text);
  // Sends a signal to all children: they may end in their own time.
  void Forward(int signal);
  void KillAll();
  // Something else has failed.
  void Fail(int code, std::string cause);
  // A line of its own, between those of the children's standard error.
  void Say(absl::string_view line) { error_.AddLine(clear_line_, line); }

  // Returns when all children have ended. Call it once.
  SupervisionResult Run();

 private:
  struct Running;
  struct Stream;
  class Poller;

  Supervisor(const World* world, SupervisorOptions options);
  void Watch(Poller* poller);
  void WatchStream(Poller* poller, size_t child, Stream* stream, const Outlet& outlet);
  void ReadStream(size_t child, Stream* stream);
  void OnLine(size_t child, const Stream& stream, const std::string& line);
  void ReadOrders();
  void ReadSignals();
  void OnSignal(int signal);
  void OnChildren();
  void OnEnd(size_t child, const siginfo_t& end);
  void CheckDeadlines();
  Nanoseconds NextDeadline() const;
  void Flush();

  const World* const world_;
  const SupervisorOptions options_;
  Outlet output_;
  Outlet error_;
  std::string clear_line_;  // before each line, where a redrawn line may stand
  sigset_t signals_ = {};
  sigset_t mask_before_ = {};
  File signal_file_;
  LineSplitter order_lines_;
  bool orders_ended_ = false;

  std::vector<std::unique_ptr<Running>> children_;
  size_t alive_ = 0;
  bool was_signalled_ = false;
  bool was_killed_ = false;
  Nanoseconds kill_at_ = kForever;
  SupervisionResult result_;
};

}  // namespace sluice::tools
