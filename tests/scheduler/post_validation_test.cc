// Post-validation of the gradient norm: its programs as text, their proofs, and what they save.
#include <algorithm>
#include <random>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "scheduler/generators.h"
#include "scheduler/lowering.h"
#include "scheduler/simulate.h"
#include "scheduler/verifier.h"

namespace sluice {
namespace {

using ::testing::HasSubstr;

constexpr QueuePolicy kPolicies[] = {QueuePolicy::kOnePerRank, QueuePolicy::kOneCommPerRank,
                                     QueuePolicy::kOnePerDirection, QueuePolicy::kOnePerEdge};

struct Programs {
  Program guess_right;
  PostValidationPrograms others;
};

Programs Make(const std::string& generator, const GeneratorParams& params, LoweringOptions options = {}) {
  options.norm_check = NormCheck::kPostValidation;
  const auto program = Lower(*Generate(generator, params), options);
  EXPECT_TRUE(program.ok()) << program.status();
  return {*program, DerivePostValidation(*program)};
}

TEST(PostValidationTest, TheFourProgramsOfAStep) {
  const Programs programs = Make("zb_h2", {.ranks = 2, .micro_batches = 3});
  EXPECT_EQ(ToText(programs.guess_right.ranks),
            "0F0 RECV_POST_VALIDATION 0SEND_F0 0F1 0SEND_F1 POST_VALIDATION "
            "0F2 0SEND_F2 0RECV_B0 0I0 0W0 0RECV_B1 0I1 0W1 0RECV_B2 0I2 0W2 NORM SEND_NORM OPTIMIZER_STEP\n"
            "SEND_POST_VALIDATION POST_VALIDATION "
            "1RECV_F0 1F0 1RECV_F1 1I0 1RECV_F2 1SEND_B0 1F1 1I1 1SEND_B1 1F2 1I2 1SEND_B2 RECV_NORM 1W0 1W1 1W2 "
            "NORM OPTIMIZER_STEP\n");
  EXPECT_EQ(ToText(programs.others.guess_wrong.ranks),
            "0F0~ RECV_POST_VALIDATION 0SEND_F0~ 0F1~ 0SEND_F1~ POST_VALIDATION "
            "0F0 0SEND_F0 0F1 0SEND_F1 "
            "0F2 0SEND_F2 0RECV_B0 0I0 0W0 0RECV_B1 0I1 0W1 0RECV_B2 0I2 0W2 NORM SEND_NORM OPTIMIZER_STEP\n"
            "SEND_POST_VALIDATION POST_VALIDATION 1RECV_F0~ 1RECV_F1~ "
            "1RECV_F0 1F0 1RECV_F1 1I0 1RECV_F2 1SEND_B0 1F1 1I1 1SEND_B1 1F2 1I2 1SEND_B2 RECV_NORM 1W0 1W1 1W2 "
            "NORM OPTIMIZER_STEP\n");
  EXPECT_EQ(ToText(programs.others.first_step.ranks),
            "0F0 0SEND_F0 0F1 0SEND_F1 "
            "0F2 0SEND_F2 0RECV_B0 0I0 0W0 0RECV_B1 0I1 0W1 0RECV_B2 0I2 0W2 NORM SEND_NORM OPTIMIZER_STEP\n"
            "1RECV_F0 1F0 1RECV_F1 1I0 1RECV_F2 1SEND_B0 1F1 1I1 1SEND_B1 1F2 1I2 1SEND_B2 RECV_NORM 1W0 1W1 1W2 "
            "NORM OPTIMIZER_STEP\n");
  EXPECT_EQ(ToText(programs.others.settle.ranks),
            "RECV_POST_VALIDATION POST_VALIDATION\n"
            "SEND_POST_VALIDATION POST_VALIDATION\n");
}

// What the ranks of a wrong guess do before they begin again.
std::string UntilReplay(const Program& guess_wrong) {
  std::vector<std::vector<Action>> beginnings;
  for (const auto& list : guess_wrong.ranks) {
    const auto replay = std::find_if(list.begin(), list.end(), [](const Action& a) {
      return (IsCompute(a.kind) || IsStageTransfer(a.kind)) && !(a.flags & kDiscarded);
    });
    beginnings.emplace_back(list.begin(), replay);
  }
  return ToText(beginnings);
}

TEST(PostValidationTest, AMessageThatARankAwaitsAlreadyIsSentWithoutContent) {
  // Rank 0 has posted the receive for its second chunk before it knew; rank 2 had not come to its first.
  const Programs programs = Make("interleaved_1f1b", {.ranks = 3, .chunks = 2, .micro_batches = 5});
  EXPECT_EQ(
      UntilReplay(programs.others.guess_wrong),
      "0F0~ 0SEND_F0~ 0F1~ 0SEND_F1~ 0F2~ 0SEND_F2~ 0F3~ RECV_POST_VALIDATION 3RECV_F0~ 0SEND_F3~ POST_VALIDATION\n"
      "RECV_POST_VALIDATION 1RECV_F0~ 1F0~ 1RECV_F1~ 1SEND_F0~ 1F1~ 1RECV_F2~ 1SEND_F1~ "
      "SEND_POST_VALIDATION POST_VALIDATION 1RECV_F3~\n"
      "SEND_POST_VALIDATION POST_VALIDATION 2RECV_F0~ 2RECV_F1~ 2SEND_F0~\n");
}

TEST(PostValidationTest, EveryGeneratorIsProvenUnderEveryPolicy) {
  std::mt19937 random(3);
  const auto below = [&](int n) { return static_cast<int>(random() % n); };
  int verified = 0;
  for (const Generator& generator : Generators()) {
    for (int round = 0; round < 40; ++round) {
      const GeneratorParams params{.ranks = 1 + below(6), .chunks = 1 + below(3), .micro_batches = 1 + below(14)};
      const auto schedule = generator.generate(params);
      if (!schedule.ok() || schedule->pass != PassKind::kTraining || schedule->placement.copies() > 1) continue;
      for (QueuePolicy policy : kPolicies) {
        const LoweringOptions options{.queues = policy, .send_slots = 1 + below(3), .receive_ahead = below(4)};
        const Programs programs = Make(generator.name, params, options);
        const PostValidationPrograms& others = programs.others;
        for (const Program* program :
             {&programs.guess_right, &others.first_step, &others.guess_wrong, &others.settle}) {
          const auto report = Verify(*program);
          ASSERT_TRUE(report.ok()) << program->name << " p=" << params.ranks << " v=" << params.chunks
                                   << " m=" << params.micro_batches << " " << report.status() << "\n"
                                   << ToText(programs.guess_right.ranks) << "\n"
                                   << ToText(program->ranks);
          if (program->pass == PassKind::kTraining) {
            EXPECT_EQ(report->in_flight, InFlight(*schedule));
          }
          EXPECT_TRUE(Simulate(*program, UniformCosts(schedule->placement.stages(), {})).ok());
          ++verified;
        }
        const absl::Status status = VerifySwitch(programs.guess_right, others.guess_wrong);
        EXPECT_TRUE(status.ok()) << status;
      }
    }
  }
  EXPECT_GT(verified, 2000);
}

TEST(PostValidationTest, StandsAfterAsManyForwardPassesAsThereIsTimeFor) {
  const auto forwards_before = [](const std::string& generator, const GeneratorParams& params, int rank) {
    const Programs programs = Make(generator, params);
    int forwards = 0;
    for (const Action& a : programs.guess_right.ranks[rank]) {
      if (a.kind == ActionKind::kPostValidation) return forwards;
      forwards += a.kind == ActionKind::kForward;
    }
    return -1;
  };
  const GeneratorParams four{.ranks = 4, .micro_batches = 12};
  for (int r = 0; r < 4; ++r) EXPECT_EQ(forwards_before("zb_h2", four, r), 2 * (3 - r)) << r;
  for (int r = 0; r < 4; ++r) EXPECT_EQ(forwards_before("1f1b", four, r), std::min(2 * (3 - r), 4 - r)) << r;
  for (int r = 0; r < 4; ++r) EXPECT_EQ(forwards_before("gpipe", {.ranks = 4, .micro_batches = 3}, r), r == 3 ? 0 : 2);
  EXPECT_EQ(forwards_before("gpipe", {.ranks = 4, .micro_batches = 1}, 0), 0);
}

TEST(PostValidationTest, RefusesWhatIsABarrierAllTheSame) {
  const auto refusal = [](const std::string& generator, const GeneratorParams& params,
                          std::vector<TiedTensor> tied = {}) {
    const Schedule schedule = *Generate(generator, params);
    const auto program = Lower(schedule, {.tied_tensors = std::move(tied), .norm_check = NormCheck::kPostValidation});
    EXPECT_EQ(program.status().code(), absl::StatusCode::kInvalidArgument);
    return std::string(program.status().message());
  };
  EXPECT_THAT(refusal("1f1b", {.ranks = 3, .micro_batches = 6}, {{0, {StageId(0), StageId(2)}}}),
              HasSubstr("stages 0 and 2 share tied tensor 0 and stand on ranks 0 and 2, which therefore wait for each "
                        "other at the end of every step; untie the weights"));
  EXPECT_THAT(refusal("dual_pipe", {.ranks = 2, .micro_batches = 8}), HasSubstr("trains 2 copies of the model"));
  const Schedule v = *Generate("zb_v", {.ranks = 3, .micro_batches = 6});
  EXPECT_TRUE(
      Lower(v, {.tied_tensors = {{0, {StageId(0), StageId(5)}}}, .norm_check = NormCheck::kPostValidation}).ok())
      << "both ends of the model are on rank 0";
}

// ---- What the verifier refuses ----

class Refusals : public ::testing::Test {
 protected:
  static size_t Find(const Program& program, int rank, const std::string& name) {
    const auto& list = program.ranks[rank];
    const auto at = std::find_if(list.begin(), list.end(), [&](const Action& a) { return ToString(a) == name; });
    EXPECT_NE(at, list.end()) << name << " is not on rank " << rank;
    return at - list.begin();
  }
  static void Move(Program& program, int rank, const std::string& name, const std::string& before) {
    auto& list = program.ranks[rank];
    const size_t from = Find(program, rank, name);
    const Action action = list[from];
    list.erase(list.begin() + from);
    list.insert(list.begin() + Find(program, rank, before), action);
  }
  static void Drop(Program& program, int rank, const std::string& name) {
    program.ranks[rank].erase(program.ranks[rank].begin() + Find(program, rank, name));
  }
  static std::string Refusal(const Program& program) {
    const auto report = Verify(program);
    EXPECT_FALSE(report.ok()) << ToText(program.ranks);
    return std::string(report.status().message());
  }

  const Programs made_ = Make("zb_h2", {.ranks = 2, .micro_batches = 3});
  Program right_ = made_.guess_right;
  Program wrong_ = made_.others.guess_wrong;
};

TEST_F(Refusals, ABackwardPassBeforePostValidation) {
  Move(right_, 0, "POST_VALIDATION", "0W1");
  EXPECT_THAT(Refusal(right_), HasSubstr("0I0 comes before POST_VALIDATION, which may still want the gradients"));
}

TEST_F(Refusals, AMissingPartOfTheChain) {
  Program program = right_;
  Drop(program, 1, "POST_VALIDATION");
  EXPECT_EQ(Refusal(program), "POST_VALIDATION is missing on rank 1");
  program = right_;
  Drop(program, 0, "SEND_NORM");
  EXPECT_EQ(Refusal(program), "SEND_NORM is missing on rank 0");
  program = right_;
  program.validation = Validation::kNone;
  EXPECT_EQ(Refusal(program), "RECV_POST_VALIDATION has no place on rank 0");
  program = right_;
  program.ranks[0][Find(program, 0, "SEND_NORM")].peer = PipelineRank(0);
  EXPECT_THAT(Refusal(program), HasSubstr("SEND_NORM names rank 0, but goes between neighbours, to or from rank 1"));
}

TEST_F(Refusals, AnOrderInWhichNothingIsKnownYet) {
  Program program = right_;
  Move(program, 0, "POST_VALIDATION", "RECV_POST_VALIDATION");
  EXPECT_THAT(Refusal(program), HasSubstr("POST_VALIDATION comes before RECV_POST_VALIDATION"));
  program = right_;
  Move(program, 1, "NORM", "RECV_NORM");
  EXPECT_THAT(Refusal(program), HasSubstr("NORM comes before RECV_NORM"));
  program = right_;
  Move(program, 0, "SEND_NORM", "NORM");
  EXPECT_THAT(Refusal(program), HasSubstr("SEND_NORM comes before NORM"));
}

TEST_F(Refusals, WhatIsDiscardedAndWhatIsNot) {
  Program program = wrong_;
  program.ranks[0][Find(program, 0, "0F0~")].flags = 0;
  EXPECT_THAT(Refusal(program), HasSubstr("0F0 stands twice in the list"));
  program = wrong_;
  Drop(program, 1, "1RECV_F1~");
  EXPECT_THAT(Refusal(program), HasSubstr("1RECV_F1~ is missing on rank 1, the other end of a message"));
  program = wrong_;
  Move(program, 0, "0F0~", "0SEND_F0");
  EXPECT_THAT(Refusal(program), HasSubstr("0SEND_F0~ comes before the F that makes its message"));
  program = right_;
  program.ranks[0][0].flags = kDiscarded;
  EXPECT_THAT(Refusal(program), HasSubstr("0F0~ can't be discarded here"));
}

TEST_F(Refusals, MessagesTakenInInAnotherOrderThanTheyWereSent) {
  Move(wrong_, 1, "1RECV_F1~", "1RECV_F0~");
  EXPECT_THAT(Refusal(wrong_),
              HasSubstr("crossed messages from rank 0 to rank 1: 0SEND_F0~ is posted before 0SEND_F1~"));
}

TEST_F(Refusals, ADecisionBehindMessagesThatWaitForIt) {
  // Rank 1 sends the decision before it takes anything in; in one queue rank 0 must take it in before it sends.
  Move(wrong_, 0, "RECV_POST_VALIDATION", "POST_VALIDATION");
  const std::string refusal = Refusal(wrong_);
  EXPECT_THAT(refusal, HasSubstr("deadlock when all communication of a rank runs in one queue in issue order"));
  EXPECT_THAT(refusal, HasSubstr("whose other end is rank 0's RECV_POST_VALIDATION"));
  EXPECT_TRUE(Verify(wrong_, {.progress = ProgressProof::kAsAssigned}).ok()) << "up and down have queues of their own";
}

TEST_F(Refusals, ListsThatDifferBeforeTheGuessIsKnown) {
  EXPECT_TRUE(VerifySwitch(right_, wrong_).ok());
  wrong_.ranks[0][Find(wrong_, 0, "0F0~")].stash = 1;
  EXPECT_EQ(VerifySwitch(right_, wrong_).message(),
            "rank 0, entry 0: 0F0 when the guess is right, but 0F0~ when it is wrong, which is not known by then");
  EXPECT_THAT(
      std::string(VerifySwitch(right_, made_.others.first_step).message()),
      HasSubstr("rank 0, entry 1: RECV_POST_VALIDATION when the guess is right, but 0SEND_F0 when it is wrong"));
}

// ---- What it saves ----

constexpr int64_t kUnit = 1000, kLatency = 10, kOptimizer = 300;

// Time from step to step in a long row of them.
int64_t StepNs(const std::vector<const Program*>& steps, const Costs& costs) {
  const auto timelines = SimulateSteps(steps, costs);
  EXPECT_TRUE(timelines.ok()) << timelines.status();
  const auto end = [](const Timeline& timeline) {
    int64_t latest = 0;
    for (const Span& span : timeline.spans) latest = std::max(latest, span.end_ns);
    return latest;
  };
  const size_t n = timelines->size(), half = n / 2;
  return (end((*timelines)[n - 1]) - end((*timelines)[half - 1])) / static_cast<int64_t>(n - half);
}

Costs ChainCosts(int stages, int64_t latency) {
  Costs costs = UniformCosts(stages, {.forward_ns = kUnit,
                                      .input_gradient_ns = kUnit,
                                      .weight_gradient_ns = kUnit,
                                      .backward_ns = 2 * kUnit,
                                      .optimizer_ns = kOptimizer});
  costs.transfer_latency_ns = latency;
  return costs;
}

TEST(PostValidationTest, ARowOfStepsLosesTheWayDownThePipeline) {
  for (int64_t latency : {int64_t{0}, kLatency}) {
    for (int p : {2, 3, 4, 8}) {
      SCOPED_TRACE("p=" + std::to_string(p) + " latency " + std::to_string(latency));
      const GeneratorParams params{.ranks = p, .micro_batches = 4 * p};
      const Costs costs = ChainCosts(p, latency);
      const Program barrier = *Lower(*Generate("zb_h2", params));
      const Programs programs = Make("zb_h2", params);
      std::vector<const Program*> with_barrier(12, &barrier), without(12, &programs.guess_right);
      without[0] = &programs.others.first_step;
      // The first forward pass goes down the pipeline beside the end of the step before, not after it. ZB-H2 has none
      // to spare for the latency of messages: a rank's own span has that of the way there and back.
      const int64_t saved = StepNs(with_barrier, costs) - StepNs(without, costs);
      EXPECT_EQ(saved, (p - 1) * (kUnit + latency) - 2 * (p - 1) * latency);
      EXPECT_EQ(StepNs(without, costs), 3 * kUnit * 4 * p + 2 * (p - 1) * latency + kOptimizer);
    }
  }
}

TEST(PostValidationTest, AWrongGuessCostsWhatWasDoneTooEarly) {
  const int p = 4;
  const GeneratorParams params{.ranks = p, .micro_batches = 4 * p};
  const Programs programs = Make("zb_h2", params);
  std::vector<const Program*> steps(12, &programs.guess_right);
  steps[0] = &programs.others.first_step;
  const auto last_end = [&] {
    const auto timelines = SimulateSteps(steps, ChainCosts(p, kLatency));
    EXPECT_TRUE(timelines.ok());
    int64_t latest = 0;
    for (const Span& span : timelines->back().spans) latest = std::max(latest, span.end_ns);
    return latest;
  };
  const int64_t right = last_end();
  steps[6] = &programs.others.guess_wrong;
  const int64_t lost = last_end() - right;
  EXPECT_GE(lost, 2 * (p - 1) * kUnit) << "rank 0 has done so many forward passes for nothing";
  EXPECT_LE(lost, 3 * (p - 1) * kUnit + kOptimizer + 4 * p * kLatency);
}

}  // namespace
}  // namespace sluice
