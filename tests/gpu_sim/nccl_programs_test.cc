// Lowered programs on the simulated NCCL, without tensors: what the verifier accepts runs to its end, what it refuses
// as a deadlock stands still, with exactly the queues assigned; and the same with one command of NCCL at a time on each
// GPU, against the verifier's proof with all communication of a rank in one queue.
#include <algorithm>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "scheduler/deadlock.h"
#include "scheduler/execution_model.h"
#include "scheduler/generators.h"
#include "scheduler/lowering.h"
#include "scheduler/verifier.h"
#include "tests/gpu_sim/include/nccl.h"
#include "tests/gpu_sim/test_program.h"

namespace gpu_sim {
namespace {

using namespace sluice;  // NOLINT: the scheduler's words

constexpr int64_t kBytesMax = 1024;

// Every rank is a GPU; its issuing thread is played by the test's, which goes on with each list as far as it can.
class ProgramRun {
 public:
  ProgramRun(const Program& program, bool one_at_a_time, uint64_t seed)
      : program_(program),
        model_(BuildExecutionModel(program)),
        ranks_(static_cast<int>(program.ranks.size())),
        test_({.devices = ranks_, .seed = seed, .nccl_one_at_a_time = one_at_a_time}),
        next_(ranks_, 0),
        events_(ranks_) {
    ncclUniqueId id;
    MustSucceedNccl(ncclGetUniqueId(&id));
    for (int rank = 0; rank < ranks_; ++rank) {
      ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
      config.blocking = 0;
      memory_.push_back(NewMemory(kBytesMax * (1 + ranks_), rank));
      MustSucceedNccl(ncclCommInitRankConfig(&world_.emplace_back(), ranks_, id, rank, &config));
    }
    for (ncclComm_t comm : world_) Settle(comm);
  }

  // Whether all actions have ended.
  bool Ends() {
    for (int idle = 0; idle < 3; ++idle) {
      for (int rank = 0; rank < ranks_; ++rank) {
        while (MayIssue(rank)) {
          Issue(rank);
          idle = 0;
        }
      }
      test_.world.Spend(5 * kMillisecond);
      if (AllHaveEnded()) return true;
    }
    return false;
  }
  int64_t Deadlocks() const { return test_.Times(ReportKind::kDeadlock); }
  int64_t Mismatches() const { return test_.Times(ReportKind::kMismatch); }

 private:
  using Members = std::vector<int>;

  static void MustSucceedNccl(ncclResult_t result) {
    CHECK(result == ncclSuccess || result == ncclInProgress) << result;
  }
  void Settle(ncclComm_t comm) {
    ncclResult_t state = ncclInProgress;
    for (;;) {
      MustSucceedNccl(ncclCommGetAsyncError(comm, &state));
      if (state != ncclInProgress) return;
      if (!IsNew(comm)) continue;
      test_.world.Spend(kMillisecond);
    }
  }
  // Joining and splitting take time, calls only to be asked again.
  bool IsNew(ncclComm_t comm) const { return std::count(world_.begin(), world_.end(), comm) > 0; }

  bool Ended(int rank, int32_t action) {
    return action < 0 || (action < next_[rank] && cudaEventQuery(events_[rank][action]) == cudaSuccess);
  }
  bool MayIssue(int rank) {
    if (next_[rank] == static_cast<int32_t>(program_.ranks[rank].size())) return false;
    const Waits& waits = model_.waits[rank][next_[rank]];
    return Ended(rank, waits.issue_after_input) && Ended(rank, waits.issue_after_slot);
  }
  bool AllHaveEnded() {
    for (int rank = 0; rank < ranks_; ++rank) {
      const auto actions = static_cast<int32_t>(program_.ranks[rank].size());
      for (int32_t action = 0; action < actions; ++action) {
        if (!Ended(rank, action)) return false;
      }
    }
    return true;
  }

  void Issue(int rank) {
    const int32_t number = next_[rank]++;
    const Action& action = program_.ranks[rank][number];
    cudaStream_t& stream = streams_[{rank, action.queue.value()}];
    if (stream == nullptr) stream = NewStream(rank);
    const int32_t after = model_.waits[rank][number].start_after;
    if (after >= 0) MustSucceed(cudaStreamWaitEvent(stream, events_[rank][after]));
    if (IsTransfer(action.kind)) {
      Transfer(rank, action, stream);
    } else if (IsCollective(action)) {
      Gather(rank, action, stream);
    } else {
      MustSucceed(cudaSetDevice(rank));
      MustSucceed(Touch("compute", stream, {}, {}));
    }
    events_[rank].push_back(NewEvent(rank));
    MustSucceed(cudaEventRecord(events_[rank].back(), stream));
  }

  // Messages of different channels differ in size, so that those that cross don't fit.
  void Transfer(int rank, const Action& action, cudaStream_t stream) {
    Members all(ranks_);
    for (int i = 0; i < ranks_; ++i) all[i] = i;
    const ncclComm_t comm = CommOf(rank, action.queue.value(), all);
    const bool forward = IsForwardTransfer(action.kind);
    const size_t bytes = 1 + 2 * SourceStage(action).index() + (forward ? 0 : 1) + 64 * action.copy;
    const int peer = action.peer.value();
    MustSucceedNccl(IsSend(action.kind) ? ncclSend(memory_[rank], bytes, ncclInt8, peer, comm, stream)
                                        : ncclRecv(memory_[rank], bytes, ncclInt8, peer, comm, stream));
    SettleCall(comm);
  }
  void Gather(int rank, const Action& action, cudaStream_t stream) {
    Members members;
    for (const PipelineRank member : program_.collectives[action.collective].members) members.push_back(member.value());
    const ncclComm_t comm = CommOf(rank, action.queue.value(), members);
    const size_t bytes = 1 + action.collective;
    MustSucceedNccl(ncclAllGather(memory_[rank], memory_[rank] + kBytesMax, bytes, ncclInt8, comm, stream));
    SettleCall(comm);
  }
  // Ends that don't fit make it an error, which is reported.
  static void SettleCall(ncclComm_t comm) {
    ncclResult_t state = ncclInProgress;
    while (state == ncclInProgress) MustSucceedNccl(ncclCommGetAsyncError(comm, &state));
  }

  // All ranks split when the first one needs it: their lists play no part in that.
  ncclComm_t CommOf(int rank, int queue, const Members& members) {
    std::vector<ncclComm_t>& comms = comms_[{queue, members}];
    if (comms.empty()) {
      comms.resize(ranks_);
      for (int i = 0; i < ranks_; ++i) {
        const bool belongs = std::count(members.begin(), members.end(), i) > 0;
        MustSucceedNccl(ncclCommSplit(world_[i], belongs ? 0 : NCCL_SPLIT_NOCOLOR, i, &comms[i], nullptr));
      }
      for (ncclComm_t comm : world_) Settle(comm);
    }
    return comms[rank];
  }

  const Program& program_;
  const ExecutionModel model_;
  const int ranks_;
  TestMachine test_;
  std::vector<int32_t> next_;
  std::vector<std::vector<cudaEvent_t>> events_;
  std::vector<std::byte*> memory_;
  std::vector<ncclComm_t> world_;
  std::map<std::pair<int, int>, cudaStream_t> streams_;  // by rank and queue
  std::map<std::pair<int, Members>, std::vector<ncclComm_t>> comms_;
};

constexpr QueuePolicy kPolicies[] = {QueuePolicy::kOneCommPerRank, QueuePolicy::kOnePerDirection,
                                     QueuePolicy::kOnePerEdge};

// A program as it was lowered, or with some of its actions moved a little or put into other queues.
std::optional<Program> Draw(std::mt19937& random) {
  const auto below = [&](size_t n) { return static_cast<int>(random() % n); };
  const Generator& generator = Generators()[below(Generators().size())];
  const auto schedule =
      generator.generate({.ranks = 2 + below(3), .chunks = 1 + below(2), .micro_batches = 1 + below(4)});
  if (!schedule.ok()) return std::nullopt;
  auto program =
      Lower(*schedule, {.queues = kPolicies[below(3)], .send_slots = 1 + below(2), .receive_ahead = below(3)});
  CHECK_OK(program.status());
  for (int change = below(4); change > 0; --change) {
    auto& list = program->ranks[below(program->ranks.size())];
    const int k = below(list.size());
    if (below(4) == 0 && IsTransfer(list[k].kind)) {
      list[k].queue = QueueId(below(program->queues.size()));
    } else {
      std::rotate(list.begin() + std::max(0, k - 1 - below(5)), list.begin() + k, list.begin() + k + 1);
    }
  }
  return *std::move(program);
}

struct Outcome {
  bool ends = false;
  int64_t deadlocks = 0, mismatches = 0;
};

Outcome RunOnce(const Program& program, bool one_at_a_time, uint64_t seed) {
  ProgramRun run(program, one_at_a_time, seed);
  const bool ends = run.Ends();
  return {ends, run.Deadlocks(), run.Mismatches()};
}

absl::Status Judge(const Program& program, ProgressProof proof) {
  return Verify(program, {.weight_gradient_order = WeightGradientOrder::kReported, .progress = proof}).status();
}

TEST(NcclPrograms, TheVerifiersWordIsKept) {
  std::mt19937 random(5);
  int accepted = 0, deadlocks = 0, merged = 0, circles = 0;
  for (int round = 0; round < 24000; ++round) {
    const std::optional<Program> program = Draw(random);
    if (!program.has_value()) continue;
    const bool runs = Judge(*program, ProgressProof::kAsAssigned).ok();
    const std::optional<Deadlock> deadlock = FindDeadlock(*program);
    if (!runs && !deadlock.has_value()) continue;  // refused for something else
    SCOPED_TRACE(absl::StrCat("round ", round, "\n", ToText(program->ranks)));
    const Outcome as_assigned = RunOnce(*program, /*one_at_a_time=*/false, round);
    ASSERT_EQ(as_assigned.ends, runs) << (deadlock.has_value() ? ToString(*deadlock) : "");
    ASSERT_TRUE(!runs || as_assigned.deadlocks + as_assigned.mismatches == 0);
    circles += as_assigned.deadlocks > 0;
    ++(runs ? accepted : deadlocks);
    if (!runs || round % 4 != 0) continue;
    const bool runs_merged = Judge(*program, ProgressProof::kAlsoMerged).ok();
    ASSERT_EQ(RunOnce(*program, /*one_at_a_time=*/true, round).ends, runs_merged)
        << (deadlock.has_value() ? ToString(*deadlock) : "");
    merged += !runs_merged;
  }
  // All kinds must have been met often enough to mean something.
  EXPECT_GT(accepted, 3000);
  EXPECT_GT(deadlocks, 100);
  EXPECT_GT(circles, 30);
  EXPECT_GT(merged, 3);
}

}  // namespace
}  // namespace gpu_sim
