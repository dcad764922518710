// Children of a supervisor end in every way that children may.
#include "tools/launch/supervisor.h"

#include <fcntl.h>
#include <sys/wait.h>

#include "gmock/gmock.h"
#include "tests/tools/launch/supervised.h"

namespace sluice::tools {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::testing::StartsWith;
using ::testing::UnorderedElementsAre;

class SupervisorTest : public ::testing::Test {
 protected:
  SupervisionResult Run(const std::vector<SupervisedChild>& children) {
    options_.output = output_.file();
    options_.error = error_.file();
    auto supervisor = Supervisor::Create(world_.get(), options_);
    EXPECT_TRUE(supervisor.ok()) << supervisor.status();
    for (const SupervisedChild& child : children) (*supervisor)->Start(child);
    return (*supervisor)->Run();
  }
  SupervisionResult RunScripts(const std::vector<std::string>& scripts) {
    std::vector<SupervisedChild> children;
    for (const std::string& script : scripts) children.push_back(Script(static_cast<int>(children.size()), script));
    return Run(children);
  }
  // The numbers of processes that scripts have printed, one a line.
  std::vector<pid_t> Processes() const {
    std::vector<pid_t> processes;
    for (const std::string& line : output_.Lines())
      processes.push_back(std::atoi(line.substr(line.find(' ') + 1).c_str()));
    return processes;
  }
  void ExpectNobodyLeft() const {
    for (const pid_t process : Processes()) EXPECT_FALSE(IsAlive(process)) << process;
  }

  const std::unique_ptr<World> world_ = NewRealWorld();
  SupervisorOptions options_ = {.grace = 300 * kMillisecond, .stopped_max = 300 * kMillisecond};
  Capture output_, error_;
};

constexpr char kWaits[] = "echo $$; exec sleep 1000";

TEST_F(SupervisorTest, ChildrenThatEndWellAreOneRunThatEndsWell) {
  const SupervisionResult result = RunScripts({"echo a; echo b >&2", "echo c"});
  EXPECT_EQ(result.code, 0);
  EXPECT_EQ(result.cause, "");
  EXPECT_THAT(output_.Lines(), UnorderedElementsAre("[0] a", "[1] c"));
  EXPECT_THAT(error_.Lines(), ElementsAre("[0] b"));
}

TEST_F(SupervisorTest, TheFirstFailureIsTheCauseAndEndsTheOthers) {
  const SupervisionResult result = RunScripts({kWaits, "echo sluice: because >&2; exit 3", kWaits});
  EXPECT_EQ(result.code, 3);
  EXPECT_EQ(result.cause, "process 1 failed with code 3: because");
  EXPECT_THAT(Processes(), SizeIs(2));
  ExpectNobodyLeft();
}

TEST_F(SupervisorTest, OthersMayEndByThemselvesAfterAFailure) {
  options_.grace = 20 * kSecond;
  const SupervisionResult result = RunScripts({"sleep 0.2; echo done; exit 4", "exit 3"});
  EXPECT_EQ(result.code, 3);
  EXPECT_THAT(output_.Lines(), ElementsAre("[0] done"));
}

TEST_F(SupervisorTest, AChildThatASignalEnds) {
  const SupervisionResult result = RunScripts({kWaits, "kill -9 $$"});
  EXPECT_EQ(result.code, 128 + SIGKILL);
  EXPECT_EQ(result.cause, "process 1 was ended by signal 9 (Killed)");
  ExpectNobodyLeft();
}

TEST_F(SupervisorTest, AnExecutableThatIsMissing) {
  const SupervisionResult result =
      Run({Script(0, kWaits), {.start = {.command = {"/no/such/program"}}, .name = "process 1", .prefix = ""}});
  EXPECT_EQ(result.code, 127);
  EXPECT_THAT(result.cause, StartsWith("process 1: cannot run /no/such/program"));
  ExpectNobodyLeft();
  EXPECT_EQ(Run({{.start = {.command = {"/no/such/program"}}, .name = "process 0", .prefix = ""}}).code, 127);
}

TEST_F(SupervisorTest, TheFirstSignalIsPassedOn) {
  for (const char* name : {"INT", "TERM", "HUP"}) {
    const std::string trap = absl::StrCat("trap 'echo ", name, "; exit 0' ", name, "; ");
    const SupervisionResult result =
        RunScripts({trap + "while :; do sleep 0.05; done",
                    trap + "sleep 0.1; kill -" + name + " $PPID; while :; do sleep 0.05; done"});
    EXPECT_EQ(result.code, 0) << result.cause;
    EXPECT_THAT(output_.Lines(), Contains(absl::StrCat("[0] ", name)));
    EXPECT_THAT(output_.Lines(), Contains(absl::StrCat("[1] ", name)));
  }
}

TEST_F(SupervisorTest, TheSecondSignalEndsAlsoWhatIgnoresSignals) {
  options_.grace = 1000 * kSecond;
  const SupervisionResult result =
      RunScripts({"trap '' INT TERM HUP; echo $$; kill -TERM $PPID; sleep 0.3; kill -INT $PPID; sleep 1000"});
  EXPECT_EQ(result.code, 128 + SIGINT);
  EXPECT_THAT(result.cause, HasSubstr("at once by signal 2"));
  ExpectNobodyLeft();
}

TEST_F(SupervisorTest, WhatIgnoresSignalsIsKilledAfterAFailure) {
  EXPECT_EQ(RunScripts({"trap '' INT TERM HUP; echo $$; sleep 1000", "sleep 0.2; exit 1"}).code, 1);
  EXPECT_THAT(Processes(), SizeIs(1));
  ExpectNobodyLeft();
}

TEST_F(SupervisorTest, WhoOutlivesChild0IsKilledAndNamed) {
  const SupervisionResult result = RunScripts({"exit 0", kWaits});
  EXPECT_EQ(result.code, 128 + SIGKILL);
  EXPECT_THAT(result.cause, StartsWith("process 1 was still there"));
  ExpectNobodyLeft();
}

TEST_F(SupervisorTest, AStoppedChildIsAFailureAfterAWhile) {
  const SupervisionResult result = RunScripts({kWaits, "echo $$; kill -STOP $$"});
  EXPECT_NE(result.code, 0);
  EXPECT_THAT(result.cause, StartsWith("process 1 has been stopped"));
  EXPECT_THAT(Processes(), SizeIs(2));
  ExpectNobodyLeft();
}

TEST_F(SupervisorTest, AChildThatGoesOnInTimeWasNotStopped) {
  options_.stopped_max = 5 * kSecond;
  EXPECT_EQ(RunScripts({"(sleep 0.2; kill -CONT $$) & kill -STOP $$; wait"}).code, 0);
}

TEST_F(SupervisorTest, WhatAChildLeavesBehindEndsWithIt) {
  EXPECT_EQ(RunScripts({"sleep 1000 & echo $!"}).code, 0);
  EXPECT_THAT(Processes(), SizeIs(1));
  EXPECT_TRUE(Comes([&] { return !IsAlive(Processes()[0]); }));
}

TEST_F(SupervisorTest, LinesStayWhole) {
  const SupervisionResult result =
      RunScripts({"for i in $(seq 50); do printf left; printf -- '-%s\\n' $i; done",
                  "for i in $(seq 50); do printf ri; printf -- 'ght-%s\\n' $i; done", "printf 'no end'"});
  EXPECT_EQ(result.code, 0);
  EXPECT_THAT(output_.Lines(), SizeIs(101));
  for (int i = 1; i <= 50; ++i) {
    EXPECT_THAT(output_.Lines(), Contains(absl::StrCat("[0] left-", i)));
    EXPECT_THAT(output_.Lines(), Contains(absl::StrCat("[1] right-", i)));
  }
  EXPECT_THAT(output_.Lines(), Contains("[2] no end"));
}

TEST_F(SupervisorTest, AnEndlessLineComesInPieces) {
  EXPECT_EQ(RunScripts({"head -c 200000 /dev/zero | tr '\\0' x"}).code, 0);
  EXPECT_THAT(output_.Lines(), SizeIs(200000 / LineSplitter::kLineBytesMax + 1));
  EXPECT_THAT(output_.Lines()[0], SizeIs(LineSplitter::kLineBytesMax + 4));
}

TEST_F(SupervisorTest, AChildMayCloseItsOutputs) {
  const SupervisionResult result = RunScripts({"exec >&- 2>&-; sleep 0.2; exit 5"});
  EXPECT_EQ(result.code, 5);
  EXPECT_EQ(result.cause, "process 0 failed with code 5");
}

TEST_F(SupervisorTest, AReaderThatTakesNothingHoldsNothingUp) {
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  options_.output = ends[1];
  auto supervisor = Supervisor::Create(world_.get(), options_);
  ASSERT_TRUE(supervisor.ok());
  (*supervisor)->Start(Script(0, "sleep 0.2; exit 6"));
  (*supervisor)->Start(Script(1, "exec yes"));
  EXPECT_EQ((*supervisor)->Run().code, 6);
  close(ends[0]);
  close(ends[1]);
}

TEST_F(SupervisorTest, AReaderThatIsGoneEndsNobody) {
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  close(ends[0]);
  options_.output = ends[1];
  auto supervisor = Supervisor::Create(world_.get(), options_);
  ASSERT_TRUE(supervisor.ok());
  (*supervisor)->Start(Script(0, "echo a; sleep 0.1; echo b; echo c >&2"));
  EXPECT_EQ((*supervisor)->Run().code, 0);
  close(ends[1]);
}

TEST_F(SupervisorTest, AnEmptyStandardInput) {
  EXPECT_EQ(RunScripts({"cat; echo end"}).code, 0);
  EXPECT_THAT(output_.Lines(), ElementsAre("[0] end"));
}

TEST_F(SupervisorTest, AChildIsToldAndSaysMore) {
  std::string more;
  Supervisor* supervisor = nullptr;
  options_.on_more = [&](size_t child, absl::string_view line) {
    more = std::string(line);
    EXPECT_TRUE(supervisor->Tell(child, "enough\n").ok());
    supervisor->Start(Script(1, "echo second"));
  };
  options_.output = output_.file();
  auto created = Supervisor::Create(world_.get(), options_);
  ASSERT_TRUE(created.ok());
  supervisor = created->get();
  SupervisedChild child = Script(0, "echo 4711 >&3; exec 3>&-; read word; echo $word");
  child.start.has_input = child.start.says_more = true;
  supervisor->Start(child);
  EXPECT_EQ(supervisor->Run().code, 0);
  EXPECT_EQ(more, "4711");
  EXPECT_THAT(output_.Lines(), UnorderedElementsAre("[0] enough", "[1] second"));
}

TEST_F(SupervisorTest, LinesThatAreMeantForTheSupervisorAreNotPassedOn) {
  options_.on_error_line = [&](size_t, absl::string_view line) { return line == "mine"; };
  EXPECT_EQ(RunScripts({"echo mine >&2; echo yours >&2"}).code, 0);
  EXPECT_THAT(error_.Lines(), ElementsAre("[0] yours"));
}

TEST_F(SupervisorTest, EverythingEndsWithTheOrders) {
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  options_.orders = ends[0];
  options_.on_order = [&](absl::string_view line) {
    EXPECT_EQ(line, "go");
    close(ends[1]);
  };
  ASSERT_EQ(write(ends[1], "go\n", 3), 3);
  const SupervisionResult result = RunScripts({kWaits, kWaits});
  EXPECT_NE(result.code, 0);
  EXPECT_THAT(result.cause, HasSubstr("connection to the launcher"));
  ExpectNobodyLeft();
  close(ends[0]);
}

TEST_F(SupervisorTest, VariablesReplaceThoseOfTheSameName) {
  setenv("SLUICE_TEST_VARIABLE", "before", 1);
  SupervisedChild child = Script(0, "env | grep -c SLUICE_TEST_VARIABLE; echo $SLUICE_TEST_VARIABLE");
  child.start.environment = {"SLUICE_TEST_VARIABLE=after"};
  EXPECT_EQ(Run({child}).code, 0);
  EXPECT_THAT(output_.Lines(), ElementsAre("[0] 1", "[0] after"));
}

// A supervisor in a process of its own, which is killed.
TEST_F(SupervisorTest, NobodyOutlivesASupervisorThatIsKilled) {
  const pid_t launcher = fork();
  if (launcher == 0) {
    RunScripts({kWaits, "trap '' INT TERM HUP; " + std::string(kWaits), "echo $$; kill -STOP $$"});
    _exit(0);
  }
  ASSERT_TRUE(Comes([&] { return Processes().size() == 3; }));
  for (const pid_t process : Processes()) EXPECT_TRUE(IsAlive(process));
  kill(launcher, SIGKILL);
  EXPECT_TRUE(Comes(
      [&] {
        const std::vector<pid_t> processes = Processes();
        return std::none_of(processes.begin(), processes.end(), IsAlive);
      },
      kSecond));
  waitpid(launcher, nullptr, 0);
}

TEST_F(SupervisorTest, SignalsAreAsBeforeAfterwards) {
  EXPECT_EQ(RunScripts({"exit 0"}).code, 0);
  sigset_t mask;
  sigprocmask(SIG_BLOCK, nullptr, &mask);
  EXPECT_FALSE(sigismember(&mask, SIGTERM));
}

}  // namespace
}  // namespace sluice::tools
