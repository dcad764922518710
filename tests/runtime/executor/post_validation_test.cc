// Post-validation of the gradient norm: the numbers are those of plain loops, whatever is guessed, on the real world
// and on simulated ones, with and without things that go wrong. SLUICE_SEED=17 runs that seed alone.
#include <cstdlib>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/philox.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "scheduler/generators.h"
#include "scheduler/lowering.h"
#include "scheduler/verifier.h"
#include "tests/sim/affine_job.h"
#include "tests/sim/affine_stage.h"
#include "tests/sim/sim_world.h"

namespace sluice {
namespace {

using testing::HasSubstr;

struct Choice {
  std::string schedule;
  int ranks = 2;
  int chunks = 1;
  int micro_batches = 4;
  bool tied = false;
  QueuePolicy queues = QueuePolicy::kOnePerDirection;
  int send_slots = 2;
  int receive_ahead = 1;
};

std::string ToString(const Choice& c) {
  return absl::StrCat(c.schedule, " p=", c.ranks, " v=", c.chunks, " m=", c.micro_batches,
                      " queues=", static_cast<int>(c.queues), c.tied ? " tied" : "");
}

// Lowered and proven.
AffineJobOptions JobOf(const Choice& choice, float max_norm) {
  const auto schedule = Generate(
      choice.schedule, {.ranks = choice.ranks, .chunks = choice.chunks, .micro_batches = choice.micro_batches});
  CHECK_OK(schedule.status());
  LoweringOptions options{.queues = choice.queues,
                          .send_slots = choice.send_slots,
                          .receive_ahead = choice.receive_ahead,
                          .norm_check = NormCheck::kPostValidation};
  if (choice.tied) options.tied_tensors = {{0, {StageId(0), StageId(schedule->placement.stages() - 1)}}};
  auto program = Lower(*schedule, options);
  CHECK_OK(program.status());
  AffineJobOptions job{.training = *std::move(program),
                       .max_norm = max_norm,
                       .steps = 6,
                       .tied = choice.tied,
                       .watchdog = {.limit = kSecond, .rest = 100 * kMillisecond}};
  job.post_validation = DerivePostValidation(job.training);
  for (const Program* each : {&job.training, &job.post_validation->first_step, &job.post_validation->guess_wrong,
                              &job.post_validation->settle}) {
    CHECK_OK(Verify(*each).status());
  }
  CHECK_OK(VerifySwitch(job.training, job.post_validation->guess_wrong));
  return job;
}

// Losses, norms and parameters are those of plain loops. Returns in how many steps the guess about the one before was
// wrong, by what the norms say.
int ExpectSameAsReference(const AffineJobOptions& options, const AffineJobResult& result) {
  for (const absl::Status& status : result.statuses) {
    EXPECT_TRUE(status.ok()) << status;
    if (!status.ok()) return -1;
  }
  std::set<int> poisoned;
  for (const auto& [stage, steps] : options.poisoned_steps) poisoned.insert(steps.begin(), steps.end());
  AffineReference reference(options.training.placement.stages(), options.tied, options.max_norm, poisoned);
  int wrong = 0;
  for (int step = 0; step < options.steps; ++step) {
    float norm = 0;
    const auto infos = AffineMicroBatches(options.training.micro_batches, step);
    EXPECT_EQ(result.losses[step], reference.Step(infos, AffineLearningRate(step), &norm)) << "step " << step;
    EXPECT_EQ(result.norms[step], norm) << "step " << step;
    wrong += step + 1 < options.steps && !(norm <= options.max_norm);  // that of the last step is settled
  }
  EXPECT_EQ(result.parameters, reference.parameters);
  return wrong;
}

std::vector<Choice> Choices() {
  std::vector<Choice> choices;
  for (int ranks = 2; ranks <= 4; ++ranks) {
    const auto queues = [&](int i) { return static_cast<QueuePolicy>((ranks + i) % 4); };
    choices.push_back({.schedule = "zb_h1", .ranks = ranks, .micro_batches = 2 * ranks, .queues = queues(0)});
    choices.push_back({.schedule = "zb_h2", .ranks = ranks, .micro_batches = 2 * ranks + 1, .queues = queues(1)});
    choices.push_back({.schedule = "zb_auto", .ranks = ranks, .micro_batches = 2 * ranks, .queues = queues(2)});
    choices.push_back({.schedule = "zb_v",
                       .ranks = ranks,
                       .chunks = 2,
                       .micro_batches = 2 * ranks,
                       .tied = true,
                       .queues = queues(3)});
    choices.push_back({.schedule = "1f1b", .ranks = ranks, .micro_batches = ranks + 2, .queues = queues(4)});
    choices.push_back({.schedule = "1f1b", .ranks = ranks, .micro_batches = 1, .queues = queues(4)});
    choices.push_back({.schedule = "gpipe", .ranks = ranks, .micro_batches = 5, .queues = queues(5), .send_slots = 1});
    choices.push_back({.schedule = "interleaved_1f1b",
                       .ranks = ranks,
                       .chunks = 2,
                       .micro_batches = ranks == 3 ? 5 : 2 * ranks,
                       .queues = queues(6)});
  }
  choices.push_back({.schedule = "1f1b", .ranks = 1, .tied = true});
  return choices;
}

TEST(PostValidationTest, TrainsAsPlainLoopsDoWhateverIsGuessed) {
  int right = 0, wrong = 0;
  for (const Choice& choice : Choices()) {
    for (const float max_norm : {1e6f, 80.0f, 1.0f}) {
      SCOPED_TRACE(absl::StrCat(ToString(choice), " max_norm=", max_norm));
      const AffineJobOptions options = JobOf(choice, max_norm);
      SimWorld world({.seed = 1});
      const AffineJobResult result = RunAffineJob(&world, options);
      const int replays = ExpectSameAsReference(options, result);
      if (choice.ranks > 1 && choice.micro_batches > 1) {
        EXPECT_EQ(result.replays, replays);
      }
      if (max_norm > 1e5f) {
        EXPECT_EQ(replays, 0);
      }
      if (max_norm < 2) {
        EXPECT_EQ(replays, options.steps - 1);
      }
      (max_norm == 80.0f ? wrong : right) += replays;
    }
  }
  EXPECT_GT(wrong, 10);
}

TEST(PostValidationTest, AStepThatIsNotFiniteIsSkippedByAllRanksWhoeverFindsIt) {
  for (const Choice& choice : Choices()) {
    for (const float max_norm : {1e6f, 80.0f}) {
      SCOPED_TRACE(absl::StrCat(ToString(choice), " max_norm=", max_norm));
      AffineJobOptions options = JobOf(choice, max_norm);
      const int stages = options.training.placement.stages();
      options.poisoned_steps = {{0, {0, 3}}, {stages - 1, {2, 3}}, {stages / 2, {5}}};
      SimWorld world({.seed = 2});
      ExpectSameAsReference(options, RunAffineJob(&world, options));
    }
  }
}

TEST(PostValidationTest, WhereSlotsStayTheDeviceWaitsForTransfers) {
  for (const Choice& choice : Choices()) {
    if (choice.ranks == 4) continue;  // each message is two tasks more
    SCOPED_TRACE(ToString(choice));
    AffineJobOptions options = JobOf(choice, 80);
    options.fixed_slots = true;
    options.steps = 3;
    SimWorld world({.seed = 3, .stall_one_in = 6, .stall_max = kMillisecond});
    ExpectSameAsReference(options, RunAffineJob(&world, options));
  }
}

TEST(PostValidationTest, RunsOnRealThreads) {
  for (const Choice& choice : Choices()) {
    SCOPED_TRACE(ToString(choice));
    AffineJobOptions options = JobOf(choice, 80);
    options.watchdog.limit = 60 * kSecond;
    const std::unique_ptr<World> world = NewRealWorld();
    ExpectSameAsReference(options, RunAffineJob(world.get(), options));
  }
}

TEST(PostValidationTest, RanksRunAheadOfEachOther) {
  AffineJobOptions options = JobOf({.schedule = "zb_h2", .ranks = 4, .micro_batches = 8}, 1e6);
  options.forward_costs.assign(4, kMillisecond);
  SimWorld world({.seed = 1});
  const AffineJobResult result = RunAffineJob(&world, options);
  ExpectSameAsReference(options, result);
  const auto bounds = [&](int step, PipelineRank rank) {
    Nanoseconds begin = kForever, end = 0;
    for (const Span& span : result.spans[step]) {
      if (span.rank != rank || !IsCompute(span.action.kind)) continue;
      begin = std::min(begin, span.begin_ns);
      end = std::max(end, span.end_ns);
    }
    return std::pair(begin, end);
  };
  for (int step = 1; step < options.steps; ++step) {
    // Nothing but work: three actions a micro-batch, from the first step's beginning to the last one's end.
    EXPECT_EQ(bounds(step, PipelineRank(0)).first - bounds(step - 1, PipelineRank(0)).first, 3 * 8 * kMillisecond);
    EXPECT_EQ(bounds(step - 1, PipelineRank(3)).second - bounds(step, PipelineRank(0)).first, 3 * kMillisecond)
        << "rank 0 has begun the next step while the others still work on this one";
  }
}

TEST(PostValidationTest, DeviceMemoryIsAllocatedAtCreationOnly) {
  AffineJobOptions options = JobOf({.schedule = "zb_h2", .ranks = 3, .micro_batches = 6}, 80);
  std::vector<int64_t> allocations;
  for (int steps : {1, 6}) {
    options.steps = steps;
    SimWorld world({.seed = 1});
    const AffineJobResult result = RunAffineJob(&world, options);
    if (allocations.empty()) allocations = result.allocations;
    EXPECT_EQ(result.allocations, allocations);
  }
}

TEST(PostValidationTest, ARankThatNeverLearnsIsNamedWithWhomItWaitsFor) {
  AffineJobOptions options = JobOf({.schedule = "1f1b", .ranks = 2, .micro_batches = 2}, 1e6);
  // Rank 1's transport takes part in its first step, and then no more.
  int calls = 0;
  for (const Action& action : options.post_validation->first_step.ranks[1]) calls += IsTransfer(action.kind);
  options.faults = {{.kind = FaultKind::kPeerLost, .rank = PipelineRank(1), .at_call = calls}};
  SimWorld world({.seed = 1});
  const AffineJobResult result = RunAffineJob(&world, options);
  EXPECT_EQ(result.statuses[0].code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(result.report, HasSubstr("before POST_VALIDATION for RECV_POST_VALIDATION from rank 1"));
}

// ---- Seeds ----

void RunSeed(uint64_t seed) {
  SCOPED_TRACE(absl::StrCat("SLUICE_SEED=", seed));
  uint64_t state = MixBits(seed + 7);
  const auto draw = [&](int below) { return static_cast<int>((state = MixBits(state)) % below); };
  const std::vector<Choice> choices = Choices();
  Choice choice = choices[draw(static_cast<int>(choices.size()))];
  choice.queues = static_cast<QueuePolicy>(draw(4));
  choice.receive_ahead = draw(3);
  choice.send_slots = 1 + draw(2);
  AffineJobOptions job = JobOf(choice, static_cast<float>(40 + draw(80)));
  job.steps = 1 + draw(6);
  job.compute_ahead = 1 + draw(4);
  const int stages = job.training.placement.stages();
  if (draw(3) == 0) job.poisoned_steps[draw(stages)] = {draw(job.steps)};
  for (int stage = 0; stage < stages; ++stage) job.forward_costs.push_back(draw(500) * kMicrosecond);
  bool fatal = false;
  for (int faults = draw(3); faults > 0; --faults) {
    const Fault fault{.kind = static_cast<FaultKind>(draw(kFaultKinds)),
                      .rank = PipelineRank(draw(choice.ranks)),
                      .at_call = draw(4 * choice.micro_batches * job.steps),
                      .delay = draw(20) * kMillisecond};
    fatal |= IsFatal(fault.kind);
    job.faults.push_back(fault);
  }
  job.fixed_slots = !fatal && draw(4) == 0;  // its copies don't end with the job
  SCOPED_TRACE(ToString(choice));
  SimWorld world(
      {.seed = seed, .stall_one_in = draw(2) == 0 ? 0 : 3 + draw(20), .stall_max = 1 + draw(1000) * kMicrosecond});
  const AffineJobResult result = RunAffineJob(&world, job);
  absl::Status cause;
  for (const absl::Status& status : result.statuses) cause.Update(status);
  if (cause.ok()) {
    ExpectSameAsReference(job, result);
    return;
  }
  EXPECT_TRUE(fatal) << cause;
  // A rank that needs nothing from the others any more may have ended well.
  for (const absl::Status& status : result.statuses) EXPECT_TRUE(status.ok() || status == cause) << status;
}

TEST(PostValidationTest, AnySeed) {
  if (const char* seed = std::getenv("SLUICE_SEED")) return RunSeed(std::strtoull(seed, nullptr, 10));
  for (uint64_t seed = 1; seed <= 150 && !testing::Test::HasFailure(); ++seed) RunSeed(seed);
}

}  // namespace
}  // namespace sluice
