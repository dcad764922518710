// The control plane over real loopback: the processes of a job are facades in threads of this one, and strangers are
// raw sockets.
#include "runtime/control/control_plane.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <mutex>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "tests/runtime/control/raw_connection.h"

namespace sluice {
namespace {

using testing::AllOf;
using testing::HasSubstr;

// For what must come soon; a test that waits as long has failed.
constexpr Nanoseconds kSoon = 20 * kSecond;

std::string Text(const absl::Status& status) { return std::string(status.message()); }

class ControlPlaneTest : public testing::Test {
 protected:
  // Two ranks a process.
  JoinOptions Options(int process, int processes) {
    JoinOptions options{.process = process,
                        .processes = processes,
                        .world_size = 2 * processes,
                        .ranks = {WorldRank(2 * process), WorldRank(2 * process + 1)},
                        .fingerprints = {{"job", "1a2b3c4d5e6f7081"}, {"plan", "0011223344556677"}},
                        .token = "secret",
                        .host_name = absl::StrCat("host", process),
                        .port = static_cast<uint16_t>(port_)};
    options.limits.heartbeat = 5 * kSecond;
    options.limits.join = kSoon;
    options.limits.farewell = kSecond / 5;
    return options;
  }

  // Process 0 joins in a task of its own; returns when it listens.
  EventRef StartProcess0(JoinOptions options) {
    const Ref<Signal> listens = MakeRef<Signal>();
    options.on_listening = [this, listens](int port) {
      port_ = port;
      listens->Set(absl::OkStatus(), world_->Now());
    };
    options.on_note = [this](const std::string& text) {
      std::lock_guard lock(mutex_);
      notes_ += text + "\n";
    };
    const EventRef joined = Start(0, std::move(options));
    EXPECT_TRUE(world_->WaitAny({EventRef(listens)}, world_->Now() + kSoon).has_value());
    return joined;
  }

  EventRef Start(int process, JoinOptions options) {
    return world_->Spawn({.name = "process"}, [this, process, options = std::move(options)] {
      planes_[process] = ControlPlane::Join(world_.get(), options);
    });
  }

  void StartJob(
      int processes, const std::function<void(JoinOptions*)>& change = [](JoinOptions*) {}) {
    std::vector<EventRef> joined;
    for (int process = 0; process < processes; ++process) {
      JoinOptions options = Options(process, processes);
      change(&options);
      joined.push_back(process == 0 ? StartProcess0(std::move(options)) : Start(process, std::move(options)));
    }
    for (const EventRef& event : joined) EXPECT_TRUE(world_->Wait(event).ok());
    for (int process = 0; process < processes; ++process)
      ASSERT_TRUE(planes_[process].ok()) << planes_[process].status();
  }

  // Runs `body` for every process at once.
  void InAll(int processes, const std::function<void(int process, ControlPlane& plane)>& body) {
    std::vector<EventRef> done;
    for (int process = 0; process < processes; ++process) {
      done.push_back(world_->Spawn({.name = "process"}, [this, process, &body] { body(process, **planes_[process]); }));
    }
    for (const EventRef& event : done) EXPECT_TRUE(world_->Wait(event).ok());
  }

  void LeaveAll(int processes) {
    InAll(processes, [&](int, ControlPlane& plane) {
      const absl::Status left = plane.Leave(world_->Now() + kSoon);
      EXPECT_TRUE(left.ok()) << left;
      EXPECT_FALSE(plane.cause()->Done());
    });
  }

  absl::Status Cause(int process) {
    const EventRef cause = (*planes_[process])->cause();
    if (!world_->WaitAny({cause}, world_->Now() + kSoon)) return absl::OkStatus();
    return cause->status();
  }

  std::string notes() {
    std::lock_guard lock(mutex_);
    return notes_;
  }

  const std::unique_ptr<World> world_ = NewRealWorld();
  int port_ = 0;
  std::mutex mutex_;
  std::string notes_;
  std::vector<absl::StatusOr<std::unique_ptr<ControlPlane>>> planes_{8};
};

TEST_F(ControlPlaneTest, ThreeProcessesMeetExchangeBlobsTalkAndLeave) {
  StartJob(3);
  InAll(3, [](int process, ControlPlane& plane) {
    for (const std::string name : {"addresses", "again", "addresses"}) {
      const auto blobs = plane.ExchangeBlobs(name, absl::StrCat(name, process));
      ASSERT_TRUE(blobs.ok()) << blobs.status();
      EXPECT_THAT(*blobs, testing::ElementsAre(name + "0", name + "1", name + "2"));
    }
  });
  ControlPlane& first = **planes_[0];
  for (int i = 0; i < 100; ++i) ASSERT_TRUE(first.Broadcast(absl::StrCat("step ", i)).ok());
  InAll(3, [&](int process, ControlPlane& plane) {
    for (int i = 0; i < 100; ++i) EXPECT_EQ(*plane.NextBroadcast(world_->Now() + kSoon), absl::StrCat("step ", i));
    for (int i = 0; i < 50; ++i) EXPECT_TRUE(plane.Report(absl::StrCat(i)).ok());
  });
  std::vector<int> reports(3);
  for (int i = 0; i < 150; ++i) {
    const auto report = first.NextReport(world_->Now() + kSoon);
    ASSERT_TRUE(report.ok()) << report.status();
    EXPECT_EQ(report->bytes, absl::StrCat(reports[report->process]++));
  }
  EXPECT_EQ(first.NextReport(world_->Now()).status().code(), absl::StatusCode::kDeadlineExceeded);
  LeaveAll(3);
}

TEST_F(ControlPlaneTest, OneProcessAloneIsAJobToo) {
  StartJob(1);
  EXPECT_EQ((*planes_[0])->ExchangeBlobs("x", "blob")->at(0), "blob");
  LeaveAll(1);
}

TEST_F(ControlPlaneTest, LargeMessagesArriveWhole) {
  StartJob(2);
  std::string large(8 << 20, 'x');
  for (size_t i = 0; i < large.size(); i += 1000) large[i] = static_cast<char>(i);
  ASSERT_TRUE((*planes_[0])->Broadcast(large).ok());
  ASSERT_TRUE((*planes_[1])->Report(large).ok());
  EXPECT_EQ(*(*planes_[1])->NextBroadcast(world_->Now() + kSoon), large);
  EXPECT_EQ((*planes_[0])->NextReport(world_->Now() + kSoon)->bytes, large);
  const absl::Status too_large = (*planes_[1])->Report(std::string(65 << 20, 'x'));
  EXPECT_EQ(too_large.code(), absl::StatusCode::kResourceExhausted) << too_large;
  LeaveAll(2);
}

TEST_F(ControlPlaneTest, TheClocksOfOneMachineAreEqualWithinTheUncertainty) {
  StartJob(2);
  ClockOffset offset;
  for (int i = 0; i < 1000 && offset.uncertainty == kForever; ++i) {
    offset = (*planes_[1])->clock_offset();
    world_->SleepUntil(world_->Now() + kMillisecond);
  }
  EXPECT_LT(offset.uncertainty, kSecond);
  EXPECT_LE(std::abs(offset.offset), offset.uncertainty);
  LeaveAll(2);
}

TEST_F(ControlPlaneTest, AllHearWhetherAnythingMovesAnywhere) {
  StartJob(3, [](JoinOptions* options) { options->limits.heartbeat = kSecond / 2; });
  std::atomic<uint64_t> moves = 7;
  (*planes_[2])->SetMoves([&moves] { return moves.load(); });
  InAll(3, [&](int, ControlPlane& plane) {
    const Nanoseconds deadline = world_->Now() + kSoon;
    while (plane.job_moves() != 7 && world_->Now() < deadline) world_->SleepUntil(world_->Now() + kSecond / 100);
    EXPECT_EQ(plane.job_moves(), 7u);
  });
  moves = 0;  // any change is one
  const Nanoseconds deadline = world_->Now() + kSoon;
  while ((*planes_[1])->job_moves() != 0 && world_->Now() < deadline) {
    world_->SleepUntil(world_->Now() + kSecond / 100);
  }
  EXPECT_EQ((*planes_[1])->job_moves(), 0u);
  (*planes_[2])->SetMoves(nullptr);
  LeaveAll(3);
}

TEST_F(ControlPlaneTest, OthersMayStartBeforeProcess0) {
  // A port that is free now; nobody else takes it in this moment.
  { StartJob(1); }
  planes_[0] = absl::UnknownError("gone");
  const EventRef second = Start(1, Options(1, 2));
  world_->SleepUntil(world_->Now() + 50 * kMillisecond);
  const EventRef first = StartProcess0(Options(0, 2));
  EXPECT_TRUE(world_->Wait(second).ok());
  ASSERT_TRUE(planes_[1].ok()) << planes_[1].status();
  EXPECT_TRUE(world_->Wait(first).ok());
  LeaveAll(2);
}

TEST_F(ControlPlaneTest, AWrongTokenIsRefusedAndTheOthersWait) {
  const EventRef first = StartProcess0(Options(0, 2));
  JoinOptions wrong = Options(1, 2);
  wrong.token = "sesame";
  ASSERT_TRUE(world_->Wait(Start(1, wrong)).ok());
  EXPECT_EQ(planes_[1].status().code(), absl::StatusCode::kUnauthenticated);
  EXPECT_THAT(Text(planes_[1].status()), HasSubstr("token"));
  EXPECT_THAT(notes(), AllOf(HasSubstr("token"), testing::Not(HasSubstr("sesame")), testing::Not(HasSubstr("secret"))));
  ASSERT_TRUE(world_->Wait(Start(1, Options(1, 2))).ok());
  ASSERT_TRUE(world_->Wait(first).ok());
  LeaveAll(2);
}

TEST_F(ControlPlaneTest, ADuplicateProcessIsRefusedWhileTheJobRuns) {
  StartJob(2);
  ASSERT_TRUE(world_->Wait(Start(3, Options(1, 2))).ok());
  EXPECT_EQ(planes_[3].status().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(Text(planes_[3].status()),
              AllOf(HasSubstr("process 1 (host host1, ranks 2, 3)"), HasSubstr("the job runs")));
  LeaveAll(2);
}

TEST_F(ControlPlaneTest, AMissingProcessIsNamedAtTheDeadline) {
  const auto soon = [](JoinOptions options) {
    options.limits.join = kSecond;
    return options;
  };
  const EventRef first = StartProcess0(soon(Options(0, 4)));
  const EventRef second = Start(1, soon(Options(1, 4)));
  ASSERT_TRUE(world_->Wait(first).ok());
  ASSERT_TRUE(world_->Wait(second).ok());
  for (int process : {0, 1}) {
    EXPECT_EQ(planes_[process].status().code(), absl::StatusCode::kDeadlineExceeded);
    EXPECT_THAT(Text(planes_[process].status()), HasSubstr("processes 2, 3 of 4 have not joined"));
  }
}

TEST_F(ControlPlaneTest, JoiningCanBeGivenUp) {
  const Ref<Signal> cancel = MakeRef<Signal>();
  JoinOptions options = Options(0, 3);
  options.cancel = cancel;
  const EventRef first = StartProcess0(options);
  const EventRef second = Start(1, Options(1, 3));
  cancel->Set(absl::CancelledError("Ctrl-C"), world_->Now());
  ASSERT_TRUE(world_->Wait(first).ok());
  EXPECT_EQ(planes_[0].status(), absl::CancelledError("Ctrl-C"));
  ASSERT_TRUE(world_->Wait(second).ok());
  EXPECT_THAT(Text(planes_[1].status()), HasSubstr("process 0 (host host0, ranks 0, 1): it went"));
}

TEST_F(ControlPlaneTest, AnotherPlanEndsAllNamingTheDifference) {
  const EventRef first = StartProcess0(Options(0, 2));
  JoinOptions other = Options(1, 2);
  other.fingerprints[1].value = "ffeeddccbbaa9988";
  ASSERT_TRUE(world_->Wait(Start(1, other)).ok());
  ASSERT_TRUE(world_->Wait(first).ok());
  for (int process : {0, 1}) {
    EXPECT_EQ(planes_[process].status().code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(
        Text(planes_[process].status()),
        AllOf(HasSubstr("process 1 (host host1"), HasSubstr("plan: ffeeddccbbaa..."), HasSubstr("001122334455...")));
  }
}

TEST_F(ControlPlaneTest, APortThatIsTakenIsAnErrorWithTheRemedy) {
  StartJob(1);
  JoinOptions same = Options(0, 1);
  same.port = static_cast<uint16_t>(port_);
  const auto second = ControlPlane::Join(world_.get(), same);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(Text(second.status()), AllOf(HasSubstr(absl::StrCat("port ", port_)), HasSubstr("choose another port")));
  LeaveAll(1);
}

TEST_F(ControlPlaneTest, OptionsThatCanNotBeAreRefused) {
  const auto refused = [&](const std::function<void(JoinOptions*)>& change) {
    port_ = 1;
    JoinOptions options = Options(1, 2);
    change(&options);
    return ControlPlane::Join(world_.get(), options).status().code();
  };
  EXPECT_EQ(refused([](JoinOptions* options) { options->token = ""; }), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(refused([](JoinOptions* options) { options->port = 0; }), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(refused([](JoinOptions* options) { options->process = 2; }), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(refused([](JoinOptions* options) { options->world_size = 1; }), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(refused([](JoinOptions* options) { options->limits.heartbeat = 0; }), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(refused([](JoinOptions* options) { options->limits.frame_bytes = 100; }),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(refused([](JoinOptions* options) { options->fingerprints[0].value = std::string(1 << 20, 'x'); }),
            absl::StatusCode::kResourceExhausted);
}

TEST_F(ControlPlaneTest, NobodyAtTheAddressIsAnErrorThatNamesIt) {
  { StartJob(1); }
  planes_[0] = absl::UnknownError("gone");
  JoinOptions options = Options(1, 2);
  options.limits.join = 300 * kMillisecond;
  const absl::Status status = ControlPlane::Join(world_.get(), options).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(Text(status), AllOf(HasSubstr(absl::StrCat("127.0.0.1:", port_)), HasSubstr("refused")));
}

TEST_F(ControlPlaneTest, AnAbortReachesAllWithTheFirstCause) {
  StartJob(3);
  (*planes_[2])->Abort(absl::DataLossError("a NaN in step 7"));
  for (int process = 0; process < 3; ++process) {
    const absl::Status cause = Cause(process);
    EXPECT_EQ(cause.code(), absl::StatusCode::kDataLoss);
    EXPECT_EQ(Text(cause), "process 2 (host host2, ranks 4, 5): a NaN in step 7");
    EXPECT_EQ((*planes_[process])->NextBroadcast(kForever).status(), cause);
    EXPECT_EQ((*planes_[process])->ExchangeBlobs("x", "").status(), cause);
    EXPECT_EQ((*planes_[process])->Leave(kForever), cause);
  }
}

TEST_F(ControlPlaneTest, AProcessThatGoesWithoutLeavingEndsTheJobWithItsName) {
  StartJob(3);
  planes_[1] = absl::UnknownError("gone");
  for (int process : {0, 2}) {
    EXPECT_EQ(Text(Cause(process)), "process 1 (host host1, ranks 2, 3): it went without leaving the job");
  }
}

TEST_F(ControlPlaneTest, ALeaveWaitsForAllAndEndsWhenOneFails) {
  StartJob(2);
  EXPECT_EQ((*planes_[1])->Leave(world_->Now() + 50 * kMillisecond).code(), absl::StatusCode::kDeadlineExceeded);
  (*planes_[0])->Abort(absl::InternalError("the last checkpoint could not be written"));
  EXPECT_THAT(Text(Cause(1)), HasSubstr("the last checkpoint"));
}

TEST_F(ControlPlaneTest, WhenTheCoordinatorGoesTheOthersEndWithThatCause) {
  StartJob(3);
  planes_[0] = absl::UnknownError("gone");
  for (int process : {1, 2}) EXPECT_THAT(Text(Cause(process)), HasSubstr("process 0 (host host0, ranks 0, 1)"));
}

TEST_F(ControlPlaneTest, GarbageAndHalfOpenConnectionsDoNotDisturbAJob) {
  StartJob(2, [](JoinOptions* options) {
    options->limits.hello = 300 * kMillisecond;
    options->limits.strangers = 4;
  });
  RawConnection silent(port_), torn(port_), page(port_), huge(port_);
  torn.Say(absl::string_view("\x10\0\0\0\x0a", 5));
  page.Say("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
  huge.Say("\xff\xff\xff\x7f");
  InAll(2, [](int process, ControlPlane& plane) {
    EXPECT_TRUE(plane.ExchangeBlobs("meanwhile", absl::StrCat(process)).ok());
  });
  for (RawConnection* one : {&silent, &torn, &page, &huge}) EXPECT_EQ(one->HearToTheEnd(), "");
  // More than may be open at once: the kernel holds them until others have gone.
  std::vector<std::unique_ptr<RawConnection>> many;
  for (int i = 0; i < 8; ++i) many.push_back(std::make_unique<RawConnection>(port_));
  for (const auto& one : many) EXPECT_EQ(one->HearToTheEnd(), "");
  EXPECT_THAT(notes(), AllOf(HasSubstr("127.0.0.1:"), HasSubstr("2147483647 bytes")));
  EXPECT_FALSE((*planes_[0])->cause()->Done());
  LeaveAll(2);
}

TEST_F(ControlPlaneTest, AProcessThatSpeaksNoMoreEndsTheJobWithinTheLimit) {
  JoinOptions options = Options(0, 2);
  options.limits.heartbeat = kSecond;
  const EventRef first = StartProcess0(options);
  // Says hello and then nothing, as a stopped process would.
  RawConnection stopped(port_);
  stopped.Say(*EncodeFrame(HelloFrame(
      {.process = 1, .ranks = {WorldRank(2), WorldRank(3)}, .host = "b", .fingerprints = options.fingerprints},
      "secret")));
  ASSERT_TRUE(world_->Wait(first).ok());
  ASSERT_TRUE(planes_[0].ok()) << planes_[0].status();
  const Nanoseconds began = world_->Now();
  EXPECT_THAT(Text(Cause(0)), AllOf(HasSubstr("process 1 (host b, ranks 2, 3)"), HasSubstr("not heard of for 1 s")));
  EXPECT_LT(world_->Now() - began, 10 * kSecond);
}

TEST_F(ControlPlaneTest, TheCauseReachesASlowReaderBehindALargeMessage) {
  JoinOptions options = Options(0, 2);
  const EventRef first = StartProcess0(options);
  RawConnection slow(port_);
  slow.Say(*EncodeFrame(HelloFrame(
      {.process = 1, .ranks = {WorldRank(2), WorldRank(3)}, .host = "b", .fingerprints = options.fingerprints},
      "secret")));
  ASSERT_TRUE(world_->Wait(first).ok());
  ASSERT_TRUE(planes_[0].ok()) << planes_[0].status();
  // More than the kernel holds: it is half sent when the job ends, and takes longer than an idle connection may.
  ASSERT_TRUE((*planes_[0])->Broadcast(std::string(32 << 20, 'x')).ok());
  (*planes_[0])->Abort(absl::DataLossError("a NaN in step 7"));
  EXPECT_FALSE(Cause(0).ok());
  FrameReader reader(64 << 20);
  reader.Append(slow.HearToTheEnd([&] { world_->SleepUntil(world_->Now() + kMillisecond); }));
  std::string last;
  for (auto frame = reader.Next(); frame.ok() && frame->has_value(); frame = reader.Next()) {
    last = (*frame)->abort().message();
  }
  EXPECT_EQ(last, "process 0 (host host0, ranks 0, 1): a NaN in step 7");
}

TEST_F(ControlPlaneTest, AProcessWhoseConnectionBreaksEndsTheJob) {
  JoinOptions options = Options(0, 2);
  const EventRef first = StartProcess0(options);
  {
    RawConnection killed(port_);
    killed.Say(*EncodeFrame(HelloFrame(
        {.process = 1, .ranks = {WorldRank(2), WorldRank(3)}, .host = "b", .fingerprints = options.fingerprints},
        "secret")));
    ASSERT_TRUE(world_->Wait(first).ok());
    ASSERT_TRUE(planes_[0].ok()) << planes_[0].status();
  }
  EXPECT_THAT(Text(Cause(0)), AllOf(HasSubstr("process 1 (host b, ranks 2, 3) has died"), HasSubstr("connection")));
}

TEST_F(ControlPlaneTest, WhatIsNotTakenIsBounded) {
  StartJob(2, [](JoinOptions* options) { options->limits.queue_bytes = 1 << 20; });
  absl::Status status;
  for (int i = 0; i < 10000 && status.ok(); ++i) status = (*planes_[1])->Report(std::string(4096, 'x'));
  EXPECT_EQ(Cause(1).code(), absl::StatusCode::kResourceExhausted) << Cause(1);
}

}  // namespace
}  // namespace sluice
