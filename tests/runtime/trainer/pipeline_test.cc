// A rank that fails ends all ranks of its pipeline with its cause, at any time; and what runs holds what was promised.
#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/world.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/config/job.h"
#include "runtime/data/batch.h"
#include "runtime/data/dataset.h"
#include "runtime/planner/plan.h"
#include "runtime/trainer/pipeline.h"
#include "runtime/trainer/rank_devices.h"
#include "runtime/transport/gloo_hub.h"
#include "tests/runtime/transport/blob_board.h"

namespace sluice {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// A device that gives out only so many allocations.
class PoorDevice final : public Device {
 public:
  PoorDevice(Device* inner, int allocations) : inner_(inner), left_(allocations) {}
  std::string description() const override { return "a device without memory"; }
  absl::StatusOr<Buffer> Allocate(int64_t bytes, absl::string_view purpose) override {
    if (--left_ < 0) return absl::ResourceExhaustedError(absl::StrCat("no memory for ", purpose));
    return inner_->Allocate(bytes, purpose);
  }
  std::unique_ptr<Stream> NewStream(absl::string_view name) override { return inner_->NewStream(name); }
  const Operations& operations() const override { return inner_->operations(); }
  MemoryUse memory() const override { return inner_->memory(); }

 private:
  void Free(std::byte*, int64_t) override {}
  Device* inner_;
  int left_;
};

class PipelineTest : public ::testing::Test {
 protected:
  PipelineTest() {
    std::ofstream(folder_ + "/text.txt") << std::string(500, 'a') << std::string(500, 'b');
    plan_ = PlanOf({});
  }

  Plan PlanOf(std::vector<std::string> overrides) const {
    auto job = ParseJob(
        "model { family: 'gpt2' layers: 3 channels: 32 heads: 2 positions: 16 vocabulary: 256 }"
        "data { text: 'text.txt' } training { batch: 4 micro_batches: 4 sequence: 16 }"
        "layout { pp: 3 threads_per_rank: 1 pin: false }",
        folder_ + "/job.textproto", {.user_directory = folder_, .overrides = std::move(overrides)});
    CHECK_OK(job.status());
    auto plan = MakePlan(*job);
    CHECK_OK(plan.status());
    return *std::move(plan);
  }

  std::unique_ptr<Batch> FirstBatch(const Plan& plan) const {
    const TrainingConfig& training = plan.job.training;
    const auto dataset = Dataset::Open(plan.job.data, plan.job.graph.vocabulary, training.sequence);
    CHECK_OK(dataset.status());
    auto batch = std::make_unique<Batch>(ShapeOf(training));
    BatchMaker(&*dataset, batch->shape, {}, 1).Training(0, batch.get());
    return batch;
  }

  TrainingOutcome RunStep(const Plan& plan, Pipeline& pipeline) const {
    const auto batch = FirstBatch(plan);
    pipeline.StartStep({.micro_batches = batch->micro_batches, .learning_rate = 0.1f, .update = 1});
    auto outcome = pipeline.FinishStep();
    CHECK_OK(outcome.status());
    return *std::move(outcome);
  }

  // What came of the second one, on the ranks of this pipeline.
  std::vector<RankOutcome> TwoSteps(const Plan& plan, const Batch& batch, Pipeline& pipeline) const {
    std::vector<RankOutcome> outcomes;
    for (int step = 0; step < 2; ++step) {
      pipeline.StartStep({.micro_batches = batch.micro_batches, .learning_rate = 0.1f, .update = step + 1});
      outcomes = pipeline.FinishRanksStep().value();
    }
    return outcomes;
  }

  // Of all ranks, of which number r lives in process_of[r]. A task with a hub of its own stands for a process.
  std::vector<RankOutcome> TwoStepsOfProcesses(const Plan& plan, const Batch& batch,
                                               const std::vector<int>& process_of) const {
    const int processes = process_of.back() + 1;
    BlobBoard board(processes);
    std::vector<std::vector<RankOutcome>> outcomes(processes);
    std::vector<EventRef> tasks;
    for (int process = 0; process < processes; ++process) {
      tasks.push_back(world_->Spawn({.name = "process"}, [&, process] {
        GlooHub hub(world_.get(), {.process = process, .process_of = process_of, .exchange = board.Of(process)});
        PipelineOptions options{.open_transport = [&](WorldRank rank, Device*, const auto& channels, const auto& groups) {
                                  return hub.Open(rank, channels, groups);
                                },
                                .connect_transport = [&] { return hub.Connect(); }};
        for (size_t rank = 0; rank < process_of.size(); ++rank) {
          if (process_of[rank] == process) options.ranks.push_back(WorldRank(rank));
        }
        const auto pipeline = Pipeline::Create(world_.get(), plan, options);
        CHECK_OK(pipeline.status());
        outcomes[process] = TwoSteps(plan, batch, **pipeline);
        CHECK_OK(board.Of(process)("all have finished", "").status());
      }));
    }
    std::vector<RankOutcome> all;
    for (int process = 0; process < processes; ++process) {
      CHECK_OK(world_->Wait(tasks[process]));
      std::move(outcomes[process].begin(), outcomes[process].end(), std::back_inserter(all));
    }
    return all;
  }

  const std::string folder_ = std::getenv("TEST_TMPDIR");

  const std::unique_ptr<World> world_ = NewRealWorld();
  Plan plan_;
};

// Stashes held at once while the step ran, per Placement::Index.
std::vector<int> StashesHeld(const Timeline& timeline, const Placement& placement) {
  std::vector<std::vector<std::pair<int64_t, int>>> changes(placement.stages() * placement.copies());
  for (const Span& span : timeline.spans) {
    const Action& a = span.action;
    const bool takes = a.kind == ActionKind::kForward;
    if (!takes && a.kind != ActionKind::kBackward && a.kind != ActionKind::kWeightGradient) continue;
    changes[placement.Index(a.stage, a.copy)].emplace_back(takes ? span.begin_ns : span.end_ns, takes ? 1 : -1);
  }
  std::vector<int> most;
  for (auto& stage : changes) {
    std::sort(stage.begin(), stage.end());  // what ends at a moment before what begins at it
    int held = 0, held_most = 0;
    for (const auto& [time, change] : stage) held_most = std::max(held_most, held += change);
    most.push_back(held_most);
  }
  return most;
}

TEST_F(PipelineTest, HoldsWhatTheVerifierPromised) {
  const std::vector<std::vector<std::string>> jobs = {
      {"schedule.name=1f1b", "layout.pp=4"},
      {"schedule.name=eager_1f1b", "layout.pp=3"},
      {"schedule.name=gpipe", "layout.pp=2", "training.recompute=full"},
      {"schedule.name=interleaved_1f1b", "layout.pp=2", "layout.chunks=2"},
      {"schedule.name=zb_h2", "layout.pp=3"},
      {"schedule.name=zb_v", "layout.pp=2", "layout.chunks=2", "training.recompute=selective"},
      {"schedule.name=dual_pipe_v", "layout.pp=2", "layout.chunks=2"},
      {"schedule.name=dual_pipe", "layout.pp=4"},
      {"schedule.name=chimera", "layout.pp=4"},
  };
  for (std::vector<std::string> overrides : jobs) {
    const std::string name = overrides[0] + " " + overrides[1];
    overrides.insert(overrides.end(), {"training.batch=8", "training.micro_batches=8"});
    const Plan plan = PlanOf(overrides);
    const auto pipeline = Pipeline::Create(world_.get(), plan, {});
    ASSERT_TRUE(pipeline.ok()) << pipeline.status();
    const TrainingOutcome outcome = RunStep(plan, **pipeline);
    EXPECT_EQ(StashesHeld(outcome.timeline, plan.training.placement), plan.report.in_flight) << name;
    for (size_t rank = 0; rank < plan.report.ranks.size(); ++rank) {
      const auto promised = static_cast<double>(plan.report.ranks[rank].allocated_bytes);
      const auto held = static_cast<double>((*pipeline)->memory()[rank].peak_bytes);
      EXPECT_NEAR(held, promised, 0.05 * promised) << name << " rank " << rank;
    }
  }
}

// A process may see late that a message of its own has left.
TEST_F(PipelineTest, NoReceiveOfTheTimelineEndsBeforeItsSendBegan) {
  const Plan plan = PlanOf({"layout.pp=3", "training.batch=8", "training.micro_batches=4"});
  const auto pipeline = Pipeline::Create(world_.get(), plan, {});
  ASSERT_TRUE(pipeline.ok()) << pipeline.status();
  const auto batch = FirstBatch(plan);
  (*pipeline)->StartStep({.micro_batches = batch->micro_batches, .learning_rate = 0.1f, .update = 1});
  auto ranks = (*pipeline)->FinishRanksStep();
  ASSERT_TRUE(ranks.ok()) << ranks.status();
  for (RankOutcome& rank : *ranks) {
    for (Span& span : rank.spans) {
      if (IsSend(span.action.kind)) span.begin_ns = span.end_ns += 5 * kMillisecond;
    }
  }
  int messages = 0;
  const Timeline timeline = Assemble(plan, *ranks, 0).timeline;
  for (const Span& send : timeline.spans) {
    if (!IsSend(send.action.kind)) continue;
    const bool forward = send.action.kind == ActionKind::kSendForward;
    for (const Span& recv : timeline.spans) {
      const auto kind = forward ? ActionKind::kRecvForward : ActionKind::kRecvBackward;
      const int stage = send.action.stage.value() + (forward ? 1 : -1);
      if (recv.action.kind != kind || recv.action.stage != StageId(stage)) continue;
      if (recv.action.micro_batch != send.action.micro_batch) continue;
      EXPECT_GE(recv.end_ns, send.begin_ns);
      ++messages;
    }
  }
  EXPECT_EQ(messages, 2 * 2 * 4) << "two borders, both ways, four micro-batches";
}

// What generation asks for: prompts of two lengths, filled up behind.
TEST_F(PipelineTest, GivesTheLogitsAfterEachPromptWhateverTheCut) {
  constexpr int64_t kRows = 2, kSequence = 16, kVocabulary = 256;
  std::vector<int32_t> tokens, positions;
  for (int32_t i = 0; i < kRows * kSequence; ++i) {
    tokens.push_back((37 * i) % kVocabulary);
    positions.push_back(i % kSequence);
  }
  const std::vector<int32_t> samples(kRows), ends = {4, 2 * kSequence - 1};
  const auto logits = [&](const std::string& pp, const std::string& tp = "1") {
    const Plan plan = PlanOf({"training.batch=8", "layout.pp=" + pp, "layout.tp=" + tp});
    const auto pipeline = Pipeline::Create(world_.get(), plan, {});
    CHECK_OK(pipeline.status());
    const MicroBatchInfo prompts{.index = MicroBatch(0),
                                 .rows = kRows,
                                 .sequence = kSequence,
                                 .tokens = tokens,
                                 .positions = positions,
                                 .samples = samples,
                                 .training = false,
                                 .logits_of = ends};
    return (*pipeline)->Logits(prompts).value();
  };
  const std::vector<float> whole = logits("1");
  ASSERT_EQ(whole.size(), static_cast<size_t>(kRows * kVocabulary));
  EXPECT_EQ(logits("3"), whole);
  const std::vector<float> of_shards = logits("3", "2");
  for (size_t i = 0; i < whole.size(); ++i) EXPECT_NEAR(of_shards[i], whole[i], 1e-5) << "sums in another order";
  tokens[5] = 1;  // behind the end of the first prompt
  EXPECT_EQ(logits("1"), whole);
  tokens[4] = 1;  // its last token
  const std::vector<float> other = logits("1");
  EXPECT_FALSE(std::equal(whole.begin(), whole.begin() + kVocabulary, other.begin()));
  EXPECT_TRUE(std::equal(whole.begin() + kVocabulary, whole.end(), other.begin() + kVocabulary));
}

TEST_F(PipelineTest, ARankWithoutMemoryIsTheErrorOfThePipeline) {
  const Plan shards = PlanOf({"layout.tp=2"});
  for (const Plan* plan : std::initializer_list<const Plan*>{&plan_, &shards}) {
    for (int allocations : {0, 1, 2, 3}) {
      const auto pipeline = Pipeline::Create(
          world_.get(), *plan, {.wrap_device = [&](Device* device, WorldRank rank) -> std::unique_ptr<Device> {
            return std::make_unique<PoorDevice>(device, rank == WorldRank(1) ? allocations : 1000);
          }});
      ASSERT_FALSE(pipeline.ok()) << allocations;
      EXPECT_EQ(pipeline.status().code(), absl::StatusCode::kResourceExhausted);
      EXPECT_THAT(std::string(pipeline.status().message()), HasSubstr("no memory for"));
    }
  }
}

// Whatever the shards were exchanging.
TEST_F(PipelineTest, WhatIsAbortedEndsInTheMiddleOfAStep) {
  for (const char* layout : {"layout.tp=1", "layout.tp=2"}) {
    const Plan plan = PlanOf({layout});
    const auto batch = FirstBatch(plan);
    for (int delay = 0; delay < 8; ++delay) {
      const auto pipeline = Pipeline::Create(world_.get(), plan, {});
      ASSERT_TRUE(pipeline.ok()) << pipeline.status();
      (*pipeline)->StartStep({.micro_batches = batch->micro_batches, .learning_rate = 0.1f, .update = 1});
      world_->SleepUntil(world_->Now() + delay * kMillisecond / 4);
      (*pipeline)->Abort(absl::CancelledError("somebody else failed"));
      EXPECT_THAT(std::string((*pipeline)->FinishStep().status().message()), HasSubstr("somebody else failed"));
    }
  }
}

// What shards exchange inside of actions, messages between stages, the norm: some within a process, some not.
TEST_F(PipelineTest, ShardsInSeveralProcessesGiveTheBitsOfOne) {
  for (const char* slices : {"layout.sequence_parallel=false", "layout.sequence_parallel=true"}) {
    const Plan plan = PlanOf({"layout.pp=2", "layout.tp=2", slices});
    const auto batch = FirstBatch(plan);
    const auto in_one = Pipeline::Create(world_.get(), plan, {});
    ASSERT_TRUE(in_one.ok()) << in_one.status();
    const TrainingOutcome together = Assemble(plan, TwoSteps(plan, *batch, **in_one), 0);
    for (const std::vector<int>& process_of : {std::vector<int>{0, 1, 0, 1}, {0, 0, 1, 1}, {0, 1, 2, 2}}) {
      const TrainingOutcome apart = Assemble(plan, TwoStepsOfProcesses(plan, *batch, process_of), 0);
      EXPECT_EQ(apart.loss_sums, together.loss_sums);
      EXPECT_EQ(apart.control.norm, together.control.norm);
    }
  }
}

// The plan is that of the first shard, which has the most rows of a vocabulary that doesn't divide.
TEST_F(PipelineTest, AShardHoldsWhatWasPlannedAndAllocatesNothingLater) {
  for (const char* slices : {"layout.sequence_parallel=false", "layout.sequence_parallel=true"}) {
    const Plan plan = PlanOf({"layout.pp=2", "layout.tp=2", "model.vocabulary=259", slices});
    const auto pipeline = Pipeline::Create(world_.get(), plan, {});
    ASSERT_TRUE(pipeline.ok()) << pipeline.status();
    const auto batch = FirstBatch(plan);
    const std::vector<RankMemory> before = (*pipeline)->memory();
    TwoSteps(plan, *batch, **pipeline);
    const std::vector<RankMemory> after = (*pipeline)->memory();
    ASSERT_EQ(after.size(), 4u);
    for (size_t rank = 0; rank < 4; ++rank) {
      EXPECT_EQ(after[rank].allocations, before[rank].allocations) << rank;
      EXPECT_LE(after[rank].peak_bytes, after[rank].planned_bytes) << rank;
      EXPECT_GE(after[rank].peak_bytes, 0.95 * static_cast<double>(after[rank].planned_bytes)) << rank;
    }
  }
}

// A span is that of its work and of what is exchanged inside of it, which needs both shards.
TEST_F(PipelineTest, AnActionOfOneShardOverlapsThatOfTheOther) {
  const Plan plan = PlanOf({"layout.tp=2"});
  const auto pipeline = Pipeline::Create(world_.get(), plan, {});
  ASSERT_TRUE(pipeline.ok()) << pipeline.status();
  const TrainingOutcome outcome = RunStep(plan, **pipeline);
  ASSERT_EQ(outcome.timeline.ranks, 6);
  int pairs = 0;
  for (const Span& one : outcome.timeline.spans) {
    for (const Span& other : outcome.timeline.spans) {
      const bool next = one.rank.value() % 2 == 0 && other.rank.value() == one.rank.value() + 1;
      if (!next || one.action.kind != ActionKind::kBackward || one.action != other.action) continue;
      EXPECT_LT(one.begin_ns, other.end_ns);
      EXPECT_LT(other.begin_ns, one.end_ns);
      ++pairs;
    }
  }
  EXPECT_EQ(pairs, 3 * 4) << "of each stage and micro-batch";
}

TEST_F(PipelineTest, RanksHaveGpusOfTheirOwnOrShareThemWithTheirNeighbours) {
  EXPECT_EQ(*ChooseGpus(2, 4, {}), (std::vector<int>{0, 1}));
  EXPECT_EQ(*ChooseGpus(4, 4, {}), (std::vector<int>{0, 1, 2, 3}));
  EXPECT_EQ(*ChooseGpus(4, 2, {}), (std::vector<int>{0, 0, 1, 1}));
  EXPECT_EQ(*ChooseGpus(3, 1, {}), (std::vector<int>{0, 0, 0}));
  // The second of two processes on a host: behind the first one's, unless it sees its own only.
  const GpuShare second = {.local_process = 1, .local_processes = 2};
  EXPECT_EQ(*ChooseGpus(2, 4, second), (std::vector<int>{2, 3}));
  EXPECT_EQ(*ChooseGpus(2, 2, second), (std::vector<int>{0, 1}));
  EXPECT_EQ(*ChooseGpus(2, 1, second), (std::vector<int>{0, 0}));
  EXPECT_EQ(*ChooseGpus(2, 4, {.gpus = {3, 1}}), (std::vector<int>{3, 1}));
  EXPECT_EQ(ChooseGpus(2, 4, {.gpus = {3, 4}}).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ChooseGpus(2, 4, {.gpus = {3}}).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(PipelineTest, WhatDoesNotFitIntoAGpuIsRefusedWithThePlansNumbers) {
  const std::vector<WorldRank> ranks = {WorldRank(0), WorldRank(1), WorldRank(2)};
  const cuda::CudaDeviceInfo info{.name = "G", .memory_bytes = int64_t{80} << 30};
  const std::vector<int> gpu_of = {0, 0, 1};
  EXPECT_TRUE(CheckGpuMemory(plan_, ranks, gpu_of, 0, info, int64_t{1000} << 20).ok());
  const absl::Status status = CheckGpuMemory(plan_, ranks, gpu_of, 0, info, int64_t{300} << 20);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  for (const char* part : {"GPU 0 (G)", "300 MiB free of 81920 MiB", "rank 0", "rank 1", "recompute"}) {
    EXPECT_THAT(std::string(status.message()), HasSubstr(part));
  }
  EXPECT_THAT(std::string(status.message()), Not(HasSubstr("rank 2")));
}

TEST_F(PipelineTest, GpusThatAreNotThereAreRefusedBeforeAnythingIsBuilt) {
  if (cuda::FindCudaDevices().ok()) GTEST_SKIP() << "there is a GPU here";
  const auto pipeline = Pipeline::Create(world_.get(), PlanOf({"layout.device=cuda"}), {});
  EXPECT_EQ(pipeline.status().code(), absl::StatusCode::kFailedPrecondition) << pipeline.status();
}

}  // namespace
}  // namespace sluice
