// A job's processes on one host and on several, with shell scripts for processes and for ssh.
#include <fcntl.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "gmock/gmock.h"
#include "tests/tools/launch/supervised.h"
#include "tools/launch/address.h"
#include "tools/launch/host_job.h"
#include "tools/launch/host_order.h"
#include "tools/launch/hosts_file.h"
#include "tools/launch/remote_job.h"

namespace sluice::tools {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::MatchesRegex;
using ::testing::Not;
using ::testing::StartsWith;
using ::testing::UnorderedElementsAre;

class HostJobTest : public ::testing::Test {
 protected:
  SupervisionResult Run(const HostJob& job) {
    HostJobOptions options{
        .supervisor = {.grace = 300 * kMillisecond, .output = output_.file(), .error = error_.file()}};
    options.on_listening = [this](Supervisor*, int port) { port_ = port; };
    const auto result = RunOnHost(world_.get(), job, options);
    EXPECT_TRUE(result.ok()) << result.status();
    return result.value_or(SupervisionResult{.code = -1});
  }
  static HostJob Job(const std::string& script, int processes) {
    return {.command = {"/bin/bash", "-c", script}, .count = processes, .processes = processes, .token = "secret"};
  }

  const std::unique_ptr<World> world_ = NewRealWorld();
  Capture output_, error_;
  int port_ = 0;
};

constexpr char kPlace[] =
    "if [ $RANK = 0 ]; then echo 4711 >&$SLUICE_PORT_FD; fi; "
    "echo $RANK/$WORLD_SIZE $LOCAL_RANK/$LOCAL_WORLD_SIZE $MASTER_ADDR:$MASTER_PORT $SLUICE_TOKEN \"$SLUICE_PORT_FD\" "
    ">&2";

TEST_F(HostJobTest, EveryProcessLearnsItsPlaceAndThePortThatProcess0HasTaken) {
  EXPECT_EQ(Run(Job(kPlace, 3)).code, 0);
  EXPECT_EQ(port_, 4711);
  EXPECT_THAT(error_.Lines(),
              UnorderedElementsAre("[0] 0/3 0/3 127.0.0.1:0 secret 3", "[1] 1/3 1/3 127.0.0.1:4711 secret ",
                                   "[2] 2/3 2/3 127.0.0.1:4711 secret "));
}

TEST_F(HostJobTest, APartOfAJobOfSeveralHosts) {
  HostJob job = Job(kPlace, 2);
  job.first = 4;
  job.processes = 8;
  job.address = "10.0.0.1";
  job.port = 99;
  EXPECT_EQ(Run(job).code, 0);
  EXPECT_THAT(error_.Lines(),
              UnorderedElementsAre("[4] 4/8 0/2 10.0.0.1:99 secret ", "[5] 5/8 1/2 10.0.0.1:99 secret "));
}

TEST_F(HostJobTest, NobodyElseStartsIfProcess0FailsBeforeItListens) {
  const SupervisionResult result = Run(Job("echo no data >&2; exit 1", 4));
  EXPECT_EQ(result.code, 1);
  EXPECT_EQ(result.cause, "process 0 failed with code 1: no data");
  EXPECT_THAT(error_.Lines(), ElementsAre("[0] no data"));
}

TEST_F(HostJobTest, RubbishIsNoPort) {
  EXPECT_EQ(Run(Job("echo x >&$SLUICE_PORT_FD; echo 99999 >&$SLUICE_PORT_FD; echo 0 >&$SLUICE_PORT_FD", 2)).code, 0);
  EXPECT_EQ(port_, 0);
}

TEST_F(HostJobTest, TokensAreLongAndDiffer) {
  const auto one = MakeToken(), other = MakeToken();
  ASSERT_TRUE(one.ok() && other.ok());
  EXPECT_THAT(*one, MatchesRegex("[0-9a-f]+"));
  EXPECT_EQ(one->size(), 32u);
  EXPECT_NE(*one, *other);
}

// --- several hosts ---

// The test's own binary is the supervisor on each "host".
constexpr char kServe[] = "--serve";

class RemoteJobTest : public HostJobTest {
 protected:
  void SetUp() override {
    folder_ = ::testing::TempDir() + "/remote";
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
    std::ofstream(folder_ + "/job") << "a job";
    Write("ssh", "[ $1 = dead ] && { echo no route to $1 >&2; exit 255; }\nexec /bin/sh -c \"$2\"");
  }
  void Write(const std::string& name, const std::string& script) const {
    const std::string path = folder_ + "/" + name;
    std::ofstream(path) << "#!/bin/bash\n" << script << "\n";
    std::filesystem::permissions(path, std::filesystem::perms::owner_all);
  }
  SupervisionResult RunRemote(const std::string& script, const std::vector<HostLine>& hosts) {
    RemoteJob job{
        .hosts = hosts,
        .ssh = {folder_ + "/ssh"},
        .serve = {std::filesystem::read_symlink("/proc/self/exe").string(), kServe},
        .order = {.job = Job(script, 0), .directory = folder_, .job_file = folder_ + "/job", .interface = interface_}};
    const auto result =
        RunOnHosts(world_.get(), job, {.grace = kSecond, .output = output_.file(), .error = error_.file()});
    EXPECT_TRUE(result.ok()) << result.status();
    return result.value_or(SupervisionResult{.code = -1});
  }

  std::string folder_;
  std::string interface_ = "lo";
};

constexpr char kSaysPlace[] =
    "[ $RANK = 0 ] && echo 4711 >&$SLUICE_PORT_FD; echo $RANK/$WORLD_SIZE $LOCAL_RANK/$LOCAL_WORLD_SIZE "
    "$MASTER_ADDR:$MASTER_PORT $SLUICE_TOKEN >&2";

TEST_F(RemoteJobTest, EveryHostRunsItsProcesses) {
  const SupervisionResult result = RunRemote(kSaysPlace, {{"a", 2}, {"b", 1}, {"c", 2}});
  EXPECT_EQ(result.code, 0) << result.cause;
  EXPECT_THAT(
      error_.Lines(),
      UnorderedElementsAre("process 0 on a is reached at 127.0.0.1 port 4711", "a: [0] 0/5 0/2 127.0.0.1:0 secret",
                           "a: [1] 1/5 1/2 127.0.0.1:4711 secret", "b: [2] 2/5 0/1 127.0.0.1:4711 secret",
                           "c: [3] 3/5 0/2 127.0.0.1:4711 secret", "c: [4] 4/5 1/2 127.0.0.1:4711 secret"));
}

TEST_F(RemoteJobTest, OneHostNeedsNoAddress) {
  interface_ = "";
  EXPECT_EQ(RunRemote(kSaysPlace, {{"a", 2}}).code, 0);
  EXPECT_THAT(error_.Lines(), Contains("process 0 on a is reached at 127.0.0.1 port 4711"));
}

TEST_F(RemoteJobTest, TheFirstFailureComesBackWithItsCode) {
  const SupervisionResult result = RunRemote(
      "[ $RANK = 0 ] && echo 1 >&$SLUICE_PORT_FD; [ $RANK = 2 ] && { echo because >&2; exit 7; }; exec sleep 1000",
      {{"a", 2}, {"b", 1}});
  EXPECT_EQ(result.code, 7);
  EXPECT_EQ(result.cause, "host b failed with code 7: process 2 failed with code 7: because");
}

TEST_F(RemoteJobTest, AHostThatIsNotReached) {
  const SupervisionResult result = RunRemote(kSaysPlace, {{"a", 1}, {"dead", 1}});
  EXPECT_EQ(result.code, 255);
  EXPECT_EQ(result.cause, "host dead failed with code 255: no route to dead");
}

TEST_F(RemoteJobTest, AnSshThatIsMissing) {
  std::filesystem::remove(folder_ + "/ssh");
  const SupervisionResult result = RunRemote(kSaysPlace, {{"a", 1}, {"b", 1}});
  EXPECT_EQ(result.code, 127);
  EXPECT_THAT(result.cause, AllOf(HasSubstr("host a"), HasSubstr("cannot run")));
}

TEST_F(RemoteJobTest, AJobFileThatIsMissingThere) {
  std::filesystem::remove(folder_ + "/job");
  EXPECT_THAT(RunRemote(kSaysPlace, {{"a", 1}}).cause, AllOf(HasSubstr("host a"), HasSubstr("same path on all hosts")));
}

TEST_F(RemoteJobTest, SignalsReachProcessesOnOtherHosts) {
  const SupervisionResult result = RunRemote(
      "trap 'echo got it >&2; exit 0' INT; [ $RANK = 0 ] && echo 1 >&$SLUICE_PORT_FD; "
      "[ $RANK = 1 ] && kill -INT " +
          std::to_string(getpid()) + "; while :; do sleep 0.05; done",
      {{"a", 1}, {"b", 1}});
  EXPECT_EQ(result.code, 0) << result.cause;
  EXPECT_THAT(error_.Lines(), Contains("a: [0] got it"));
  EXPECT_THAT(error_.Lines(), Contains("b: [1] got it"));
}

TEST_F(RemoteJobTest, NobodyOutlivesALauncherThatIsKilled) {
  const pid_t launcher = fork();
  if (launcher == 0) {
    RunRemote(
        "[ $RANK = 0 ] && echo 1 >&$SLUICE_PORT_FD; echo pid $$ >&2; trap '' INT TERM HUP; while :; do read -t 1000 <> "
        "<(:); done",
        {{"a", 2}, {"b", 1}});
    _exit(0);
  }
  const auto processes = [&] {
    std::vector<pid_t> found;
    for (const std::string& line : error_.Lines()) {
      const size_t at = line.find("pid ");
      if (at != std::string::npos) found.push_back(std::atoi(line.c_str() + at + 4));
    }
    return found;
  };
  ASSERT_TRUE(Comes([&] { return processes().size() == 3; }));
  kill(launcher, SIGKILL);
  EXPECT_TRUE(Comes(
      [&] {
        const std::vector<pid_t> all = processes();
        return std::none_of(all.begin(), all.end(), IsAlive);
      },
      kSecond));
}

TEST(HostOrderTest, AnOrderComesAcrossAsItWas) {
  const HostOrder order{.job = {.command = {"a b", "c'd", "\n"},
                                .first = 1,
                                .count = 2,
                                .processes = 9,
                                .address = "x",
                                .port = 3,
                                .token = "t"},
                        .directory = "/d",
                        .job_file = "/d/j",
                        .interface = "eth0",
                        .peer = "p"};
  const std::string line = ToLine(order);
  EXPECT_EQ(line.find('\n'), line.size() - 1);
  const auto read = ParseOrder(line);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(ToLine(*read), line);
  EXPECT_EQ(read->job.command, order.job.command);
  EXPECT_EQ(read->job.token, "t");
}

TEST(HostOrderTest, RubbishIsRefusedWithoutTellingTheToken) {
  for (const char* line : {"", "x", "[]", "{}", "{\"format_version\": 2}", "{\"format_version\": 1}",
                           "{\"format_version\": 1, \"command\": 3, \"token\": \"secret\"}"}) {
    const auto order = ParseOrder(line);
    EXPECT_FALSE(order.ok()) << line;
    EXPECT_THAT(std::string(order.status().message()), Not(HasSubstr("secret")));
  }
  EXPECT_EQ(ParseSignal(SignalLine(15)), 15);
  for (const char* line : {"", "x", "[1]", "{\"signal\": \"x\"}", "{}"}) EXPECT_EQ(ParseSignal(line), 0);
  Listening listening;
  EXPECT_TRUE(ParseListening(ToLine(Listening{.address = "10.0.0.1", .port = 5}), &listening));
  EXPECT_EQ(listening.address, "10.0.0.1");
  EXPECT_EQ(listening.port, 5);
  EXPECT_FALSE(ParseListening("sluice-process-0-listens 10.0.0.1", &listening));
  EXPECT_FALSE(ParseListening("warning: something", &listening));
}

TEST(HostsFileTest, LinesCommentsAndCounts) {
  const auto hosts = ParseHosts("# ours\nnode1 processes=4\r\n\n  node2\t# one\n10.0.0.3 processes=2", "hosts");
  ASSERT_TRUE(hosts.ok()) << hosts.status();
  ASSERT_EQ(hosts->size(), 3u);
  EXPECT_EQ((*hosts)[0].host, "node1");
  EXPECT_EQ((*hosts)[0].processes, 4);
  EXPECT_EQ((*hosts)[1].host, "node2");
  EXPECT_EQ((*hosts)[1].processes, 1);
  EXPECT_EQ((*hosts)[2].processes, 2);
}

TEST(HostsFileTest, ErrorsNameTheLine) {
  const auto refusal = [](const char* text) { return std::string(ParseHosts(text, "hosts").status().message()); };
  EXPECT_THAT(refusal("a\nb processes=0"), AllOf(StartsWith("hosts:2: "), HasSubstr("processes=0")));
  EXPECT_THAT(refusal("a slots=2"), AllOf(StartsWith("hosts:1: "), HasSubstr("slots=2")));
  EXPECT_THAT(refusal("a processes=2 processes=3"), StartsWith("hosts:1: "));
  EXPECT_THAT(refusal("a\n\na"), AllOf(StartsWith("hosts:3: "), HasSubstr("line 1")));
  EXPECT_THAT(refusal("-oProxyCommand=rm"), StartsWith("hosts:1: "));
  EXPECT_THAT(refusal("processes=3"), StartsWith("hosts:1: "));
  EXPECT_THAT(refusal("# nobody\n"), HasSubstr("names no host"));
}

TEST(AddressTest, ChoosesWhatLeadsToThePeerOrWhatIsAskedFor) {
  EXPECT_EQ(AddressForOthers("", "127.0.0.1", "").value_or(""), "127.0.0.1");
  EXPECT_EQ(AddressForOthers("lo", "", "").value_or(""), "127.0.0.1");
  EXPECT_EQ(AddressForOthers("10.1.2.3", "", "").value_or(""), "10.1.2.3");
  EXPECT_EQ(AddressForOthers("", "no-such-host.invalid", "10.0.0.1 5 10.0.0.2 22").value_or(""), "10.0.0.2");
  EXPECT_THAT(std::string(AddressForOthers("eth77", "", "").status().message()),
              AllOf(HasSubstr("eth77"), HasSubstr("lo (127.0.0.1)")));
  EXPECT_THAT(std::string(AddressForOthers("", "no-such-host.invalid", "").status().message()),
              HasSubstr("--interface"));
}

TEST(AddressTest, LoopbackLeadsNowhere) {
  EXPECT_EQ(AddressTowards("127.0.0.1"), "");
  EXPECT_EQ(AddressTowards("no-such-host.invalid"), "");
  EXPECT_FALSE(IsNameOfLoopback("localhost")) << "whoever says so means it";
  EXPECT_FALSE(IsNameOfLoopback("127.0.1.1"));
  EXPECT_FALSE(IsNameOfLoopback("no-such-host.invalid"));
}

int Serve() {
  const auto world = NewRealWorld();
  const auto result = ServeHost(world.get(), {.grace = 300 * kMillisecond}, "");
  const std::string error = result.ok() ? result->cause : std::string(result.status().message());
  if (!error.empty()) std::fprintf(stderr, "sluice: %s\n", error.c_str());
  return result.ok() ? result->code : 1;
}

}  // namespace
}  // namespace sluice::tools

int main(int argc, char** argv) {
  if (argc > 1 && std::string(argv[1]) == sluice::tools::kServe) return sluice::tools::Serve();
  ::testing::InitGoogleMock(&argc, argv);
  return RUN_ALL_TESTS();
}
