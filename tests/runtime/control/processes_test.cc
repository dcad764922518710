// The control plane between real processes that are killed or stopped by signals: all others end within the limit and
// name the first cause.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "runtime/control/control_plane.h"

namespace sluice {
namespace {

using testing::AllOf;
using testing::HasSubstr;

constexpr Nanoseconds kLimit = kSecond;
// Beside the limit, on a machine that does other things too.
constexpr Nanoseconds kSlack = 8 * kSecond;

// A child process that works in a job and tells lines through a pipe: first the port (process 0), then "runs", then how
// the job ended for it.
class JobProcess {
 public:
  // REQUIRES: this process has one thread.
  JobProcess(int process, int processes, int port, Nanoseconds works) {
    int ends[2];
    if (pipe(ends) != 0) abort();
    id_ = fork();
    if (id_ == 0) {
      close(ends[0]);
      tell_ = ends[1];
      Work(process, processes, port, works);
      _exit(0);
    }
    close(ends[1]);
    hear_ = ends[0];
  }
  ~JobProcess() {
    kill(id_, SIGKILL);
    waitpid(id_, nullptr, 0);
    close(hear_);
  }
  void Signal(int signal) { kill(id_, signal); }

  // The next line, or "" when none comes in time or the process is gone.
  std::string Hear(Nanoseconds within) {
    std::string line;
    for (char byte; poll_once(within) && read(hear_, &byte, 1) == 1 && byte != '\n';) line += byte;
    return line;
  }

 private:
  bool poll_once(Nanoseconds within) {
    pollfd watch{.fd = hear_, .events = POLLIN};
    return poll(&watch, 1, static_cast<int>(within / kMillisecond)) == 1;
  }
  void Tell(std::string line) {
    line += "\n";
    (void)!write(tell_, line.data(), line.size());
  }
  void Work(int process, int processes, int port, Nanoseconds works) {
    const std::unique_ptr<World> world = NewRealWorld();
    JoinOptions options{.process = process,
                        .processes = processes,
                        .world_size = processes,
                        .ranks = {WorldRank(process)},
                        .token = "secret",
                        .host_name = "here",
                        .port = static_cast<uint16_t>(port),
                        .on_listening = [this](int chosen) { Tell(absl::StrCat(chosen)); }};
    options.limits.heartbeat = kLimit;
    options.limits.join = 10 * kSecond;
    absl::StatusOr<std::unique_ptr<ControlPlane>> plane = ControlPlane::Join(world.get(), options);
    if (!plane.ok()) return Tell(plane.status().ToString());
    Tell("runs");
    absl::Status ended;
    if (world->WaitAny({(*plane)->cause()}, world->Now() + works)) {
      ended = (*plane)->cause()->status();
    } else {
      ended = (*plane)->Leave(kForever);
    }
    Tell(ended.ToString());
  }

  pid_t id_ = 0;
  int hear_ = -1, tell_ = -1;
};

class ControlProcessesTest : public testing::Test {
 protected:
  void Start(int processes, Nanoseconds works) {
    processes_.push_back(std::make_unique<JobProcess>(0, processes, 0, works));
    port_ = std::atoi(processes_[0]->Hear(kSlack).c_str());
    for (int process = 1; process < processes; ++process) {
      processes_.push_back(std::make_unique<JobProcess>(process, processes, port_, works));
    }
    for (const auto& process : processes_) ASSERT_EQ(process->Hear(kSlack), "runs");
  }
  std::string End(int process) { return processes_[process]->Hear(kLimit + kSlack); }

  int port_ = 0;
  std::vector<std::unique_ptr<JobProcess>> processes_;
};

TEST_F(ControlProcessesTest, AllWorkAndLeave) {
  Start(4, 2 * kLimit);
  for (int process = 0; process < 4; ++process) EXPECT_EQ(End(process), "OK");
}

TEST_F(ControlProcessesTest, AKilledProcessIsNamedByAll) {
  Start(4, 100 * kSecond);
  processes_[2]->Signal(SIGKILL);
  for (int process : {0, 1, 3}) EXPECT_THAT(End(process), HasSubstr("process 2 (host here, rank 2) has died"));
}

TEST_F(ControlProcessesTest, AStoppedProcessIsNamedByAllAndHearsWhyWhenItGoesOn) {
  Start(4, 100 * kSecond);
  processes_[2]->Signal(SIGSTOP);
  const std::string cause = End(0);
  EXPECT_THAT(cause, HasSubstr("process 2 (host here, rank 2) is dead or cut off: not heard of for 1 s"));
  for (int process : {1, 3}) EXPECT_EQ(End(process), cause);
  processes_[2]->Signal(SIGCONT);
  EXPECT_EQ(End(2), cause);
}

TEST_F(ControlProcessesTest, AShortStopIsNoDeath) {
  Start(3, 3 * kLimit);
  for (int process : {2, 0}) {
    processes_[process]->Signal(SIGSTOP);
    EXPECT_EQ(processes_[1]->Hear(kLimit / 4), "");
    processes_[process]->Signal(SIGCONT);
  }
  for (int process = 0; process < 3; ++process) EXPECT_EQ(End(process), "OK");
}

TEST_F(ControlProcessesTest, AKilledCoordinatorIsNamedByAll) {
  Start(4, 100 * kSecond);
  processes_[0]->Signal(SIGKILL);
  for (int process : {1, 2, 3}) EXPECT_THAT(End(process), HasSubstr("process 0, the coordinator at 127.0.0.1"));
}

TEST_F(ControlProcessesTest, AStoppedCoordinatorIsNamedByAllAndEndsWhenItGoesOn) {
  Start(3, 100 * kSecond);
  processes_[0]->Signal(SIGSTOP);
  for (int process : {1, 2}) {
    EXPECT_THAT(End(process), AllOf(HasSubstr("process 0, the coordinator"), HasSubstr("not heard of for 1 s")));
  }
  processes_[0]->Signal(SIGCONT);
  EXPECT_THAT(End(0), HasSubstr("process"));
}

TEST_F(ControlProcessesTest, OneThatIsKilledWhileOthersAreMissingEndsTheMeeting) {
  processes_.push_back(std::make_unique<JobProcess>(0, 3, 0, kSecond));
  port_ = std::atoi(processes_[0]->Hear(kSlack).c_str());
  processes_.push_back(std::make_unique<JobProcess>(1, 3, port_, kSecond));
  // Long enough to have joined; if it has not, process 0 names both as missing.
  EXPECT_EQ(processes_[1]->Hear(kLimit / 2), "");
  processes_[1]->Signal(SIGKILL);
  EXPECT_THAT(processes_[0]->Hear(12 * kSecond), HasSubstr("process"));
}

}  // namespace
}  // namespace sluice
