#include "scheduler/search/candidates.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "scheduler/generators.h"
#include "scheduler/simulate.h"
#include "scheduler/timeline.h"

namespace sluice::search {
namespace {

MicroBatchMemory MemoryOf(const ModelCut& cut, int stage) {
  return cut.memory.empty() ? MicroBatchMemory{} : cut.memory[stage];
}

int64_t TransferNs(const Costs& costs, int64_t bytes) {
  const double rate = costs.transfer_bytes_per_second;
  return costs.transfer_latency_ns + (rate > 0 ? static_cast<int64_t>(1e9 * static_cast<double>(bytes) / rate) : 0);
}

std::vector<PassCosts> PassCostsOf(const ModelCut& cut) {
  std::vector<PassCosts> costs;
  for (size_t s = 0; s < cut.costs.stages.size(); ++s) {
    const StageCosts& stage = cut.costs.stages[s];
    const MicroBatchMemory memory = MemoryOf(cut, static_cast<int>(s));
    costs.push_back({.forward_ns = stage.forward_ns,
                     .input_gradient_ns = stage.input_gradient_ns,
                     .weight_gradient_ns = stage.weight_gradient_ns,
                     .transfer_ns = TransferNs(cut.costs, std::max(stage.activation_bytes, stage.gradient_bytes)),
                     .forward_bytes = memory.forward_bytes,
                     .weight_bytes = std::min(memory.weight_bytes, memory.forward_bytes)});
  }
  return costs;
}

// Peak and allowance of each rank of any schedule, two-copy ones too.
struct RankMemory {
  int64_t micro_batch_bytes = 0;  // of one forward pass through all of the rank's stages
  int64_t bytes = 0, peak = 0;
};

std::vector<RankMemory> MemoryOfRanks(const Schedule& schedule, const ModelCut& cut) {
  const Placement& placement = schedule.placement;
  std::vector<RankMemory> ranks(placement.ranks());
  for (int copy = 0; copy < placement.copies(); ++copy) {
    for (int s = 0; s < placement.stages(); ++s) {
      ranks[placement.RankOf(StageId(s), copy).index()].micro_batch_bytes += MemoryOf(cut, s).forward_bytes;
    }
  }
  for (size_t r = 0; r < ranks.size(); ++r) {
    RankMemory& rank = ranks[r];
    rank.micro_batch_bytes /= placement.copies();
    const auto add = [&](int64_t bytes) { rank.peak = std::max(rank.peak, rank.bytes += bytes); };
    for (const Action& action : schedule.ranks[r]) {
      const MicroBatchMemory memory = MemoryOf(cut, action.stage.value());
      const bool backward = action.kind == ActionKind::kBackward;
      if (action.kind == ActionKind::kForward) add(memory.forward_bytes);
      if (action.kind == ActionKind::kInputGradient || backward) add(memory.weight_bytes - memory.forward_bytes);
      if (action.kind == ActionKind::kWeightGradient || backward) add(-memory.weight_bytes);
    }
  }
  return ranks;
}

void CheckCap(const SearchProblem& problem, const std::vector<RankMemory>& ranks, Candidate& candidate) {
  for (size_t r = 0; r < ranks.size(); ++r) {
    const double share =
        static_cast<double>(ranks[r].peak) / static_cast<double>(std::max<int64_t>(1, ranks[r].micro_batch_bytes));
    candidate.memory_share_max = std::max(candidate.memory_share_max, share);
    if (ranks[r].peak <= CapBytes(problem, ranks[r].micro_batch_bytes) || !candidate.refusal.empty()) continue;
    candidate.refusal =
        absl::StrFormat("holds %d bytes (%.4g micro-batches) on rank %d, more than the cap", ranks[r].peak, share, r);
  }
}

TimedGenerator TimeOne(const SearchProblem& problem, const ModelCut& cut, const Generator& generator,
                       const GeneratorParams& params, ModelCopies copies) {
  TimedGenerator timed{.candidate = {.name = generator.name, .chunks = cut.chunks}, .cut = &cut};
  const auto refuse = [&](absl::string_view why) {
    timed.candidate.refusal = std::string(why);
    timed.schedule = {};
    return std::move(timed);
  };
  absl::StatusOr<Schedule> schedule = generator.generate(params);
  if (!schedule.ok()) return refuse(schedule.status().message());
  if (schedule->placement.stages() != problem.ranks * cut.chunks) {
    return refuse(absl::StrCat("has ", schedule->placement.stages() / problem.ranks, " stages per rank"));
  }
  if (schedule->pass != PassKind::kTraining) return refuse("does not train");
  if (schedule->placement.copies() > 1 && copies == ModelCopies::kOne) return refuse("holds two copies of the model");
  const absl::StatusOr<Timeline> timeline = SimulateSchedule(*schedule, cut.costs);
  if (!timeline.ok()) return refuse(timeline.status().message());
  const TimelineMetrics metrics = Measure(*timeline);
  timed.candidate.times = {.makespan_ns = metrics.makespan_ns, .span_ns = metrics.span_ns};
  CheckCap(problem, MemoryOfRanks(*schedule, cut), timed.candidate);
  timed.schedule = *std::move(schedule);
  return timed;
}

}  // namespace

std::vector<TimedGenerator> TimeGenerators(const SearchProblem& problem, ModelCopies copies) {
  std::vector<TimedGenerator> timed;
  for (const ModelCut& cut : problem.cuts) {
    GeneratorParams params{.ranks = problem.ranks,
                           .chunks = cut.chunks,
                           .micro_batches = problem.micro_batches,
                           .costs = PassCostsOf(cut)};
    int64_t bytes = 0;  // of the rank that holds most
    for (int r = 0; r < problem.ranks; ++r) {
      int64_t rank_bytes = 0;
      for (int c = 0; c < cut.chunks; ++c) rank_bytes += MemoryOf(cut, r + c * problem.ranks).forward_bytes;
      bytes = std::max(bytes, rank_bytes);
    }
    const int64_t cap = CapBytes(problem, std::max<int64_t>(1, bytes));
    params.in_flight_cap = cap == kNoCap ? problem.micro_batches
                                         : static_cast<double>(cap) / static_cast<double>(std::max<int64_t>(1, bytes));
    for (const Generator& generator : Generators()) timed.push_back(TimeOne(problem, cut, generator, params, copies));
  }
  return timed;
}

}  // namespace sluice::search
