#include "tests/runtime/executor/programs.h"

#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace sluice {
namespace {

// Stage-major: each rank works through all micro-batches of a stage before the next.
Schedule SplitSchedule(const ProgramChoice& choice) {
  Schedule schedule{.name = "split", .micro_batches = choice.micro_batches};
  schedule.placement = choice.v_placement ? Placement::V(choice.ranks) : Placement::Loop(choice.ranks, 2);
  schedule.ranks.resize(choice.ranks);
  const int stages = schedule.placement.stages();
  const auto add = [&](int stage, Action (*make)(StageId, MicroBatch, int), uint8_t flags) {
    auto& list = schedule.ranks[schedule.placement.RankOf(StageId(stage)).index()];
    for (int i = 0; i < choice.micro_batches; ++i) {
      list.push_back(make(StageId(stage), MicroBatch(i), 0));
      list.back().flags = i % 2 == 0 && i + 1 < choice.micro_batches ? flags : uint8_t{kNoFlags};
    }
  };
  for (int stage = 0; stage < stages; ++stage) add(stage, Forward, kOverlapsNext);
  for (int stage = stages - 1; stage >= 0; --stage) add(stage, InputGradient, kNoFlags);
  for (int stage = stages - 1; stage >= 0; --stage) add(stage, WeightGradient, kNoFlags);
  return schedule;
}

}  // namespace

std::string ToString(const ProgramChoice& choice) {
  return absl::StrCat(choice.schedule, choice.v_placement ? " V" : "", " p=", choice.ranks, " m=", choice.micro_batches,
                      " queues=", static_cast<int>(choice.queues), choice.tied ? " tied" : "", " dp=", choice.replicas, choice.zero1 ? " zero1" : "");
}

Program MakeProgram(const ProgramChoice& choice) {
  Schedule schedule;
  if (choice.schedule == "split") {
    schedule = SplitSchedule(choice);
  } else {
    auto generated = Generate(choice.schedule, {.ranks = choice.ranks, .micro_batches = choice.micro_batches});
    CHECK_OK(generated.status());
    schedule = *std::move(generated);
  }
  LoweringOptions options{.queues = choice.queues, .replicas = choice.replicas, .zero1 = choice.zero1};
  if (choice.tied)
    options.tied_tensors.push_back({.tensor = 0, .stages = {StageId(0), StageId(schedule.placement.stages() - 1)}});
  auto program = Lower(schedule, options);
  CHECK_OK(program.status());
  CHECK_OK(Verify(*program).status());
  return *std::move(program);
}

}  // namespace sluice
