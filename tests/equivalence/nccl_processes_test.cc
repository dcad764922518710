// A job of several processes over NCCL on simulated GPUs: a task with a hub and a pipeline of its own stands for a
// process, and causes of failures are carried between them as by the control plane. The numbers are those of one
// process; and whatever rank dies or stalls at whatever call of NCCL, all others end with a cause, in virtual time
// below the deadline.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "runtime/config/job.h"
#include "runtime/data/batch.h"
#include "runtime/data/dataset.h"
#include "runtime/planner/plan.h"
#include "runtime/trainer/pipeline.h"
#include "runtime/transport/nccl_hub.h"
#include "tests/gpu_sim/machine.h"
#include "tests/sim/sim_blob_board.h"
#include "tests/sim/sim_world.h"

namespace sluice {
namespace {

constexpr int kRanks = 4, kSteps = 2;
constexpr double kWatchdogSeconds = 2;

// Two stages twice, data-parallel with ZeRO-1.
const Plan& ThePlan() {
  static const Plan* const plan = [] {
    const std::string folder = std::getenv("TEST_TMPDIR");
    std::ofstream(folder + "/text.txt") << std::string(500, 'a') << std::string(500, 'b');
    auto job = ParseJob(
        "model { family: 'gpt2' layers: 2 channels: 64 heads: 1 positions: 16 vocabulary: 256 }"
        "data { text: 'text.txt' } training { batch: 8 micro_batches: 8 sequence: 16 gradient_groups: 2 }"
        "layout { device: cuda pp: 2 dp: 2 zero1: true }",
        folder + "/job.textproto", {.user_directory = folder});
    CHECK_OK(job.status());
    auto made = MakePlan(*job);
    CHECK_OK(made.status());
    return new Plan(*std::move(made));
  }();
  return *plan;
}

const Batch& TheBatch() {
  static const Batch* const batch = [] {
    const TrainingConfig& training = ThePlan().job.training;
    const auto dataset = Dataset::Open(ThePlan().job.data, ThePlan().job.graph.vocabulary, training.sequence);
    CHECK_OK(dataset.status());
    auto* made = new Batch(ShapeOf(training));
    BatchMaker(&*dataset, made->shape, {}, 1).Training(0, made);
    return made;
  }();
  return *batch;
}

struct JobRun {
  std::vector<absl::Status> statuses;  // of each process
  std::vector<RankOutcome> outcomes;   // of the last step, by rank, where all went well
  std::string reports;
  std::vector<int64_t> calls;   // of NCCL, of each GPU
  std::vector<int64_t> set_up;  // of those, before the first step
  Nanoseconds took = 0;         // from the first step on
};

class Job {
 public:
  Job(uint64_t seed, int processes, std::vector<gpu_sim::NcclFault> faults)
      : world_({.seed = seed}),
        machine_({.world = &world_, .devices = kRanks, .seed = seed, .nccl_faults = std::move(faults)}),
        board_(&world_, processes),
        pipelines_(processes) {
    for (int rank = 0; rank < kRanks; ++rank) process_of_.push_back(rank * processes / kRanks);
    run_.statuses.resize(processes);
    run_.set_up.resize(kRanks);
  }

  JobRun Run() {
    std::vector<EventRef> tasks;
    for (size_t process = 0; process < pipelines_.size(); ++process) {
      tasks.push_back(world_.Spawn({.name = absl::StrCat("process", process)}, [this, process] {
        run_.statuses[process] = RunProcess(static_cast<int>(process));
      }));
    }
    for (const EventRef& task : tasks) CHECK_OK(world_.Wait(task));
    run_.took = world_.Now() - began_;
    run_.reports = machine_.ReportText();
    for (int rank = 0; rank < kRanks; ++rank) run_.calls.push_back(machine_.nccl_calls(rank));
    return std::move(run_);
  }

 private:
  absl::Status RunProcess(int process) {
    NcclHub hub(&world_, {.process = process, .process_of = process_of_, .exchange = board_.Of(process)});
    PipelineOptions options{
        .open_transport = [&](WorldRank rank, Device* device, const auto& channels,
                              const auto& groups) { return hub.Open(rank, device, channels, groups); },
        .connect_transport = [&] { return hub.Connect(); },
        .gpu_share = {.local_process = process, .local_processes = static_cast<int>(pipelines_.size())},
        .watchdog_seconds = kWatchdogSeconds};
    for (int rank = 0; rank < kRanks; ++rank) {
      if (process_of_[rank] == process) options.ranks.push_back(WorldRank(rank));
    }
    auto pipeline = Pipeline::Create(&world_, ThePlan(), options);
    if (!pipeline.ok()) return pipeline.status();
    pipelines_[process] = pipeline->get();
    CHECK_OK(board_.Of(process)("ready", "").status());
    began_ = world_.Now();
    for (const WorldRank rank : options.ranks) run_.set_up[rank.index()] = machine_.nccl_calls(rank.value());
    const EventRef bridge = world_.Spawn({.name = "bridge"}, [this, process] { CarryFailure(process); });
    const absl::Status status = RunSteps(pipeline->get());
    ended_.insert(process);
    // Until all have ended, as a job does.
    while (ended_.size() < pipelines_.size()) world_.SleepUntil(world_.Now() + kMillisecond);
    CHECK_OK(world_.Wait(bridge));
    CHECK_OK(board_.Of(process)("leaving", "").status());
    return status;
  }

  absl::Status RunSteps(Pipeline* pipeline) {
    for (int step = 0; step < kSteps; ++step) {
      pipeline->StartStep({.micro_batches = TheBatch().micro_batches, .learning_rate = 0.1f, .update = step + 1});
      auto outcomes = pipeline->FinishRanksStep();
      if (!outcomes.ok()) return outcomes.status();
      if (step + 1 == kSteps) std::move(outcomes->begin(), outcomes->end(), std::back_inserter(run_.outcomes));
    }
    return absl::OkStatus();
  }

  void CarryFailure(int process) {
    const EventRef failed = pipelines_[process]->failed();
    while (ended_.size() < pipelines_.size()) {
      if (!world_.WaitAny({&failed, 1}, world_.Now() + kMillisecond).has_value()) continue;
      for (Pipeline* other : pipelines_) {
        if (other != pipelines_[process]) other->Abort(failed->status());
      }
      return;
    }
  }

  SimWorld world_;
  gpu_sim::Machine machine_;
  SimBlobBoard board_;
  std::vector<int> process_of_;
  std::vector<Pipeline*> pipelines_;
  std::set<int> ended_;
  Nanoseconds began_ = 0;
  JobRun run_;
};

JobRun RunJobOf(uint64_t seed, int processes, std::vector<gpu_sim::NcclFault> faults = {}) {
  return Job(seed, processes, std::move(faults)).Run();
}

std::vector<float> NumbersOf(JobRun& run) {
  std::sort(run.outcomes.begin(), run.outcomes.end(), [](const auto& a, const auto& b) { return a.rank < b.rank; });
  std::vector<float> numbers = LossSums(ThePlan(), run.outcomes);
  for (const RankOutcome& outcome : run.outcomes) numbers.push_back(outcome.control.norm);
  return numbers;
}

TEST(NcclProcesses, TheNumbersDoNotDependOnTheProcesses) {
  std::vector<float> one;
  for (const int processes : {1, 2, 4}) {
    JobRun run = RunJobOf(processes, processes);
    for (const absl::Status& status : run.statuses) ASSERT_TRUE(status.ok()) << status;
    EXPECT_EQ(run.reports, "");
    ASSERT_EQ(run.outcomes.size(), static_cast<size_t>(kRanks));
    if (processes == 1) one = NumbersOf(run);
    EXPECT_EQ(NumbersOf(run), one) << processes << " processes";
  }
}

// At a sample of the calls of a step; bazel run ... -- --gtest_also_run_disabled_tests takes every one.
void TryFaults(int64_t stride) {
  const JobRun whole = RunJobOf(7, kRanks);
  for (const gpu_sim::NcclFault::Kind kind :
       {gpu_sim::NcclFault::Kind::kDies, gpu_sim::NcclFault::Kind::kStalls, gpu_sim::NcclFault::Kind::kErrs}) {
    for (int rank = 0; rank < kRanks; ++rank) {
      ASSERT_GT(whole.calls[rank], whole.set_up[rank] + 10);
      for (int64_t call = whole.set_up[rank] + rank; call < whole.calls[rank] - 8; call += stride) {
        SCOPED_TRACE(absl::StrCat("fault ", static_cast<int>(kind), " of rank ", rank, " at call ", call));
        const JobRun run =
            RunJobOf(7, kRanks, {{.kind = kind, .device = rank, .at = call, .delay = 20 * kMillisecond}});
        for (const absl::Status& status : run.statuses) EXPECT_FALSE(status.ok());
        EXPECT_LT(run.took, static_cast<Nanoseconds>(3 * kWatchdogSeconds * kSecond));
      }
    }
  }
}

TEST(NcclProcesses, WhoeverDiesOrStallsAtSomeCallsAllEnd) { TryFaults(17); }

TEST(NcclProcesses, DISABLED_WhoeverDiesOrStallsAtAnyCallAllEnd) { TryFaults(1); }

}  // namespace
}  // namespace sluice
