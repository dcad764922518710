// The control protocol in virtual time, from seeds: whatever processes and strangers do, either all work together and
// leave, or all end within the limit with one first cause.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "tests/runtime/control/simulated_job.h"

namespace sluice {
namespace {

using testing::AllOf;
using testing::HasSubstr;

constexpr Nanoseconds kLong = 1000 * kSecond;
// Beside a limit: messages under way, and how often the machines look.
constexpr Nanoseconds kSlack = 4 * kSecond;

std::string Text(const absl::Status& status) { return std::string(status.message()); }

int ProcessesFor(uint64_t seed) { return seed % 10 == 0 ? 300 : 2 + static_cast<int>(seed * 7 % 23); }

std::string HelloOf(const ProcessIdentity& who, const std::string& token) {
  return *EncodeFrame(HelloFrame(who, token));
}

void ExpectAllWorkedAndLeft(const SimulatedJob& job, const SimulatedJobOptions& options) {
  ASSERT_TRUE(job.coordinator_outcome().ended.has_value());
  EXPECT_TRUE(job.coordinator_outcome().ended->ok()) << *job.coordinator_outcome().ended;
  EXPECT_TRUE(job.coordinator_finished());
  for (int process = 0; process < options.processes; ++process) {
    const SimulatedJob::Outcome& outcome = job.outcome(process);
    ASSERT_TRUE(outcome.ended.has_value()) << process;
    ASSERT_TRUE(outcome.ended->ok()) << process << ": " << *outcome.ended;
    ASSERT_EQ(static_cast<int>(outcome.blobs.size()), options.processes);
    for (int from = 0; from < options.processes; ++from) EXPECT_EQ(outcome.blobs[from], absl::StrCat("blob ", from));
    std::vector<std::string> numbers;
    for (int i = 0; i < options.broadcasts; ++i) numbers.push_back(absl::StrCat(i));
    EXPECT_EQ(outcome.broadcasts, numbers);
    EXPECT_EQ(job.reports(process), numbers);
    const ClockOffset offset = job.member(process).clock_offset();
    EXPECT_LE(std::abs(offset.offset - job.true_offset(process)), offset.uncertainty);
    if (options.bytes_per_second == 0) {
      EXPECT_LE(offset.uncertainty, options.latency_max + 1);
    }
  }
}

// All but `except`, which may be cut off or dead, end by `deadline` with the coordinator's cause.
std::string ExpectAllEndedWithOneCause(const SimulatedJob& job, const SimulatedJobOptions& options, int except,
                                       Nanoseconds deadline) {
  const auto& coordinator = job.coordinator_outcome();
  EXPECT_TRUE(coordinator.ended.has_value() && !coordinator.ended->ok());
  if (!coordinator.ended.has_value()) return "";
  EXPECT_LE(coordinator.ended_at, deadline) << *coordinator.ended;
  for (int process = 0; process < options.processes; ++process) {
    if (process == except) continue;
    const SimulatedJob::Outcome& outcome = job.outcome(process);
    EXPECT_TRUE(outcome.ended.has_value()) << process;
    if (!outcome.ended.has_value()) continue;
    EXPECT_EQ(*outcome.ended, *coordinator.ended) << process;
    EXPECT_LE(outcome.ended_at, deadline) << process;
  }
  return Text(*coordinator.ended);
}

TEST(ControlProtocolTest, AJobWithoutFaultsWorksAndEnds) {
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    SCOPED_TRACE(seed);
    const SimulatedJobOptions options{.seed = seed, .processes = seed == 1 ? 1 : ProcessesFor(seed)};
    SimulatedJob job(options);
    job.Run(kLong);
    ExpectAllWorkedAndLeft(job, options);
  }
}

TEST(ControlProtocolTest, SlowIsNotDead) {
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    SCOPED_TRACE(seed);
    SimulatedJobOptions options{.seed = seed, .processes = 2 + static_cast<int>(seed % 30)};
    options.latency_max = kSecond;
    options.work_max = 30 * kSecond;
    options.limits.hello = 20 * kSecond;
    SimulatedJob job(options);
    // Stops for less than the limit, the coordinator too; and connections that break before anything was said.
    for (int i = 0; i < 10; ++i) {
      job.Stall(static_cast<int>(job.random(options.processes - 1)), job.random(100 * kSecond),
                job.random(options.limits.heartbeat - 5 * kSecond));
    }
    job.BreakConnections(static_cast<int>(job.random(options.processes - 1)), 3);
    job.Run(3000 * kSecond);
    ExpectAllWorkedAndLeft(job, options);
  }
}

TEST(ControlProtocolTest, ALargeMessageOnASlowLinkIsNoSilence) {
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    SCOPED_TRACE(seed);
    // Each report is under way for 40 s, four times the heartbeat's limit.
    const SimulatedJobOptions options{
        .seed = seed, .processes = 3, .broadcasts = 2, .bytes_per_second = 100'000, .report_bytes = 4'000'000};
    SimulatedJob job(options);
    job.Run(kLong);
    ExpectAllWorkedAndLeft(job, options);
  }
}

TEST(ControlProtocolTest, ACoordinatorThatWasStoppedLongDoesNotTakeItsOwnSilenceForOthers) {
  SimulatedJobOptions options{.seed = 5, .processes = 4, .broadcasts = 100};
  options.limits.heartbeat = 10 * kSecond;
  SimulatedJob job(options);
  job.Stall(0, 4 * kSecond, 60 * kSecond);
  job.Run(kLong);
  // The others gave it up; when it goes on it learns so from them.
  for (int process = 1; process < 4; ++process) {
    EXPECT_THAT(Text(*job.outcome(process).ended), HasSubstr("process 0, the coordinator at h0:1, is dead or cut off"));
    EXPECT_LE(job.outcome(process).ended_at, 14 * kSecond + kSlack);
  }
  EXPECT_THAT(Text(*job.coordinator_outcome().ended), HasSubstr("is dead or cut off: not heard of for 10 s"));
}

TEST(ControlProtocolTest, StrangersCanNotDisturb) {
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    SCOPED_TRACE(seed);
    const SimulatedJobOptions options{.seed = seed, .processes = ProcessesFor(seed)};
    SimulatedJob job(options);
    std::mt19937_64 random(seed);
    const ProcessIdentity late{.process = 1, .ranks = {WorldRank(1)}, .host = "x", .fingerprints = {{"job", "other"}}};
    const ProcessIdentity unknown{.process = 1 << 30, .ranks = {WorldRank(INT32_MAX)}, .host = "x"};
    for (int i = 0; i < 100; ++i) {
      const Nanoseconds at = 2 * kSecond + job.random(3 * kSecond);
      std::string noise(random() % 300, '\0');
      for (char& byte : noise) byte = static_cast<char>(random());
      job.AddStranger(at, noise);
      job.AddStranger(at, HelloOf(late, "wrong"));
      job.AddStranger(at, HelloOf(unknown, "secret"));
      job.AddStranger(at, HelloOf(late, "secret").substr(0, random() % 20));
      job.AddStranger(at, std::string("\xff\xff\xff\x7f", 4));
    }
    // Process 1 is there by then; before, this one would take its place.
    job.AddStranger(3 * kSecond, HelloOf(late, "secret"));
    job.Run(kLong);
    ExpectAllWorkedAndLeft(job, options);
    EXPECT_LE(job.notes(), 50);
  }
}

TEST(ControlProtocolTest, AKilledProcessEndsAllAtOnceNamingIt) {
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    SCOPED_TRACE(seed);
    SimulatedJobOptions options{.seed = seed, .processes = ProcessesFor(seed)};
    options.work_max = kSecond;
    SimulatedJob job(options);
    const int victim = 1 + static_cast<int>(job.random(options.processes - 2));
    const Nanoseconds at = 2 * kSecond + job.random(4 * kSecond);
    job.Kill(victim, at);
    job.Run(kLong);
    const std::string cause = ExpectAllEndedWithOneCause(job, options, victim, at + kSlack);
    EXPECT_EQ(cause,
              absl::StrCat("process ", victim, " (host h", victim, ", rank ", victim, ") has died: reset by peer"));
  }
}

TEST(ControlProtocolTest, AProcessThatIsCutOffOrStoppedEndsAllWithinTheLimit) {
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    SCOPED_TRACE(seed);
    SimulatedJobOptions options{.seed = seed, .processes = ProcessesFor(seed), .broadcasts = 100};
    options.limits.heartbeat = kSecond * (1 + static_cast<Nanoseconds>(seed % 20));
    SimulatedJob job(options);
    const int victim = 1 + static_cast<int>(job.random(options.processes - 2));
    const Nanoseconds at = 3 * kSecond + job.random(4 * kSecond);
    const bool stop = seed % 2 == 0;
    if (stop) {
      job.Stall(victim, at, 60 * kSecond);
    } else {
      job.CutOff(victim, at);
    }
    job.Run(kLong);
    const Nanoseconds deadline = at + options.limits.heartbeat + kSlack;
    const std::string cause = ExpectAllEndedWithOneCause(job, options, victim, deadline);
    EXPECT_THAT(cause, AllOf(HasSubstr(absl::StrCat("process ", victim, " (host h")), HasSubstr("not heard of")));
    // The victim ends too: cut off, with what it sees; stopped, with the cause that waits for it when it goes on.
    const SimulatedJob::Outcome& own = job.outcome(victim);
    ASSERT_TRUE(own.ended.has_value());
    if (stop) {
      EXPECT_EQ(*own.ended, *job.coordinator_outcome().ended);
    } else {
      EXPECT_THAT(Text(*own.ended), HasSubstr("process 0"));
      EXPECT_LE(own.ended_at, deadline);
    }
  }
}

TEST(ControlProtocolTest, WhenTheCoordinatorIsGoneAllEndNamingIt) {
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    SCOPED_TRACE(seed);
    SimulatedJobOptions options{.seed = seed, .processes = ProcessesFor(seed), .broadcasts = 100};
    SimulatedJob job(options);
    const Nanoseconds at = 3 * kSecond + job.random(4 * kSecond);
    if (seed % 2 == 0) {
      job.Kill(0, at);
    } else {
      job.CutOff(0, at);
    }
    job.Run(kLong);
    for (int process = 1; process < options.processes; ++process) {
      const SimulatedJob::Outcome& outcome = job.outcome(process);
      ASSERT_TRUE(outcome.ended.has_value()) << process;
      EXPECT_THAT(Text(*outcome.ended), HasSubstr("process 0, the coordinator at h0:1"));
      EXPECT_LE(outcome.ended_at, at + options.limits.heartbeat + kSlack);
    }
  }
}

TEST(ControlProtocolTest, OfManyAbortsAllHearTheFirst) {
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    SCOPED_TRACE(seed);
    SimulatedJobOptions options{.seed = seed, .processes = ProcessesFor(seed), .broadcasts = 100};
    SimulatedJob job(options);
    const Nanoseconds at = 3 * kSecond + job.random(4 * kSecond);
    for (int i = 0; i < 5; ++i) {
      job.Abort(static_cast<int>(job.random(options.processes - 1)), at + job.random(30 * kMillisecond),
                absl::InternalError(absl::StrCat("trouble ", i)));
    }
    job.Run(kLong);
    EXPECT_THAT(ExpectAllEndedWithOneCause(job, options, -1, at + kSlack), HasSubstr("): trouble "));
  }
}

TEST(ControlProtocolTest, AMemberThatSpeaksNonsenseEndsTheJobNamingIt) {
  const ProcessIdentity again{.process = 1, .ranks = {WorldRank(1)}, .host = "h1"};
  proto::ControlFrame welcome;
  welcome.mutable_welcome()->set_heartbeat_limit_ns(1);
  for (const std::string& garbage : {std::string("\xff\xff\xff\xff"), std::string("\0\0\0\0", 4), std::string(50, 'x'),
                                     HelloOf(again, "secret"), *EncodeFrame(welcome)}) {
    const SimulatedJobOptions options{.seed = 3, .processes = 5, .broadcasts = 100};
    SimulatedJob job(options);
    job.SayGarbage(1, 4 * kSecond, garbage);
    job.Run(kLong);
    EXPECT_THAT(ExpectAllEndedWithOneCause(job, options, -1, 4 * kSecond + kSlack),
                HasSubstr("from process 1 (host h1, rank 1)"));
  }
}

TEST(ControlProtocolTest, WhoIsMissingIsNamedAtTheDeadline) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE(seed);
    const SimulatedJobOptions options{.seed = seed, .processes = 10};
    SimulatedJob job(options);
    for (int process : {3, 4, 5, 8}) job.NeverStart(process);
    // One that takes another's rank is refused, and the deadline tells.
    job.ChangeIdentity(9, [](ProcessIdentity* who) { who->ranks = {WorldRank(0)}; });
    job.Run(kLong);
    EXPECT_THAT(Text(*job.coordinator_outcome().ended),
                AllOf(HasSubstr("of 10 have not joined"), HasSubstr("3-5, 8"), HasSubstr("within 120 s")));
    for (int process : {0, 1, 2, 6, 7}) EXPECT_TRUE(job.outcome(process).ended.has_value());
  }
}

TEST(ControlProtocolTest, AnyDifferenceEndsAllNamingItAndTheProcess) {
  const auto cause_with = [](const std::function<void(ProcessIdentity*)>& change) {
    const SimulatedJobOptions options{.seed = 4, .processes = 6};
    SimulatedJob job(options);
    job.ChangeIdentity(2, change);
    job.Run(kLong);
    return ExpectAllEndedWithOneCause(job, options, -1, 3 * kSecond + kSlack);
  };
  EXPECT_THAT(cause_with([](ProcessIdentity* who) { who->fingerprints[1].value = "0123456789abcdef"; }),
              AllOf(HasSubstr("process 2 (host h2, rank 2) differs from process 0 in plan: 0123456789ab... there"),
                    HasSubstr("def at process 0")));
  EXPECT_THAT(cause_with([](ProcessIdentity* who) { who->fingerprints.pop_back(); }),
              HasSubstr("plan: not stated there"));
  EXPECT_THAT(cause_with([](ProcessIdentity* who) {
                who->fingerprints.push_back({"seed", "7"});
              }),
              HasSubstr("seed: 7 there, not stated at process 0"));
}

TEST(ControlProtocolTest, AnExchangeThatOthersNeverJoinNamesThemAtTheDeadline) {
  SimulatedJobOptions options{.seed = 4, .processes = 3, .broadcasts = 1000};
  options.limits.exchange = 20 * kSecond;
  SimulatedJob job(options);
  proto::ControlFrame only_here;
  only_here.mutable_blob()->set_name("only here");
  job.SayGarbage(0, 3 * kSecond, *EncodeFrame(only_here));
  job.Run(kLong);
  const Nanoseconds deadline = 3 * kSecond + options.limits.exchange + kSlack;
  EXPECT_EQ(ExpectAllEndedWithOneCause(job, options, -1, deadline),
            "exchange \"only here\" still waits for process 1 (host h1, rank 1) and 1 others after 20 s");
  EXPECT_GE(job.coordinator_outcome().ended_at, 3 * kSecond + options.limits.exchange);
}

TEST(ControlProtocolTest, ARandomMixEndsInOneOfTheTwoWays) {
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    SCOPED_TRACE(seed);
    SimulatedJobOptions options{.seed = seed, .processes = ProcessesFor(seed)};
    options.work_max = kSecond;
    SimulatedJob job(options);
    std::vector<int> victims;
    for (int i = 0; i < 3; ++i) {
      const int victim = static_cast<int>(job.random(options.processes - 1));
      const Nanoseconds at = job.random(20 * kSecond);
      victims.push_back(victim);
      switch (job.random(5)) {
        case 0:
          job.Kill(victim, at);
          break;
        case 1:
          job.CutOff(victim, at);
          break;
        case 2:
          job.Stall(victim, at, job.random(40 * kSecond));
          break;
        case 3:
          job.Abort(victim, at, absl::InternalError("trouble"));
          break;
        case 4:
          job.SayGarbage(victim, at, "garbage");
          break;
        default:
          job.BreakConnections(victim, 2);
      }
    }
    job.Run(kLong);
    bool all_left = true;
    for (int process = 0; process < options.processes; ++process) {
      if (std::count(victims.begin(), victims.end(), process) > 0) continue;
      ASSERT_TRUE(job.outcome(process).ended.has_value()) << process << " hangs";
      all_left &= job.outcome(process).ended->ok();
    }
    if (all_left) continue;
    // One cause; where process 0 is lost too, some see that for themselves before they hear of another.
    std::set<std::string> causes;
    for (int process = 0; process < options.processes; ++process) {
      if (std::count(victims.begin(), victims.end(), process) > 0) continue;
      const absl::Status& status = *job.outcome(process).ended;
      EXPECT_FALSE(status.ok()) << process << " left while others failed";
      causes.insert(absl::StrContains(Text(status), "process 0") ? "process 0" : Text(status));
    }
    const bool lost = std::count(victims.begin(), victims.end(), 0) > 0;
    EXPECT_LE(causes.size() - (lost ? causes.count("process 0") : 0), 1u) << testing::PrintToString(causes);
  }
}

}  // namespace
}  // namespace sluice
