#include "scheduler/simulate.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "base/check.h"
#include "base/philox.h"
#include "base/status.h"
#include "scheduler/action_costs.h"
#include "scheduler/execution_model.h"
#include "scheduler/execution_run.h"
#include "scheduler/memory_samples.h"

namespace sluice {
namespace {

int64_t OptimizerNs(const Placement& placement, PipelineRank rank, const Costs& costs) {
  int64_t total = 0;
  for (int copy = 0; copy < placement.copies(); ++copy) {
    for (int s = 0; s < placement.stages(); ++s) {
      if (placement.RankOf(StageId(s), copy) == rank) total += costs.stages[s].optimizer_ns;
    }
  }
  return total;
}

// The same number in [-1, 1) for both ends of a transfer, whatever else happens.
double Uniform(uint64_t seed, const ForwardPath& path, Action action) {
  if (IsForwardTransfer(action.kind)) {
    const StageItem source = path.Source(action);
    action.kind = ActionKind::kSendForward;
    action.stage = source.stage;
    action.micro_batch = source.micro_batch;
  } else if (IsStageTransfer(action.kind)) {
    action.stage = SourceStage(action);
    action.kind = ActionKind::kSendBackward;
  } else if (action.kind == ActionKind::kRecvNorm) {
    action.kind = ActionKind::kSendNorm;
  } else if (action.kind == ActionKind::kRecvValidation) {
    action.kind = ActionKind::kSendValidation;
  }
  const PhiloxBlock words =
      Philox({static_cast<uint32_t>(action.kind), static_cast<uint32_t>(action.stage.value()),
              static_cast<uint32_t>(action.micro_batch.value()), static_cast<uint32_t>(action.collective)},
             MixBits(seed));
  return 2.0 * UnitFloat(words[0]) - 1.0;
}

// Times by costs and scenario, and puts the spans into a timeline.
class Clock {
 public:
  static constexpr bool kTimed = true;

  // A rank begins its list at begin_ns, and has ended it at list_end_ns.
  Clock(const Program& program, const Costs& costs, const Scenario& scenario, const std::vector<int64_t>& begin_ns,
        std::vector<int64_t>& list_end_ns, Timeline& timeline)
      : program_(program),
        costs_(costs),
        scenario_(scenario),
        action_costs_(costs),
        begin_ns_(begin_ns),
        list_end_ns_(list_end_ns),
        timeline_(timeline) {
    for (const Collective& collective : program.collectives) {
      collective_bytes_.push_back(CollectiveBytes(program, collective, costs));
    }
    if (scenario.network.Competes()) network_.emplace(scenario.network, program.placement.ranks());
  }

  int64_t Begin(size_t rank) const { return begin_ns_[rank]; }
  int64_t Duration(size_t rank, const Action& action) const {
    const int64_t ns = CostNs(rank, action);
    if (scenario_.jitter == 0 && (scenario_.slowdown.empty() || IsTransfer(action.kind))) return ns;
    return std::llround(static_cast<double>(ns) * Factor(rank, action));
  }
  bool Hold(size_t r, int32_t position, int64_t ready_ns) {
    if (!network_) return false;
    const Action& action = program_.ranks[r][position];
    const PipelineRank rank(static_cast<int>(r));
    network_->Post({.from = IsSend(action.kind) ? rank : action.peer,
                    .to = IsSend(action.kind) ? action.peer : rank,
                    .ready_ns = ready_ns,
                    .alone_ns = Duration(r, action),
                    .bytes = static_cast<double>(action_costs_.Bytes(action)) * Factor(r, action),
                    .rank = rank,
                    .position = position});
    return true;
  }
  std::optional<Delivered> Deliver() {
    if (!network_) return std::nullopt;
    const std::optional<Network::Delivery> next = network_->Next();
    if (!next) return std::nullopt;
    return Delivered{next->message.rank.index(), next->message.position, next->begin_ns, next->end_ns};
  }
  void OnEnd(size_t r, int32_t position, int64_t begin_ns, int64_t end_ns) const {
    const Action& action = program_.ranks[r][position];
    list_end_ns_[r] = std::max(list_end_ns_[r], end_ns);
    timeline_.spans.push_back(
        {PipelineRank(static_cast<int>(r)), action, begin_ns, end_ns,
         IsCollective(action) ? collective_bytes_[action.collective] : action_costs_.Bytes(action)});
  }

 private:
  int64_t CostNs(size_t rank, const Action& action) const {
    if (IsCollective(action)) return CollectiveNs(collective_bytes_[action.collective], costs_);
    if (action.kind == ActionKind::kOptimizerStep ||
        (action.kind == ActionKind::kPostValidation && program_.validation == Validation::kGuessWrong)) {
      return OptimizerNs(program_.placement, PipelineRank(static_cast<int>(rank)), costs_);
    }
    return action_costs_.Ns(action);
  }
  double Factor(size_t rank, const Action& action) const {
    const double jitter =
        scenario_.jitter == 0 ? 0.0 : scenario_.jitter * Uniform(scenario_.seed, program_.path(), action);
    const bool slowed = !scenario_.slowdown.empty() && !IsTransfer(action.kind);
    return (1.0 + jitter) * (slowed ? scenario_.slowdown[rank] : 1.0);
  }

  const Program& program_;
  const Costs& costs_;
  const Scenario& scenario_;
  const ActionCosts action_costs_;
  std::vector<int64_t> collective_bytes_;  // that each member takes in
  const std::vector<int64_t>& begin_ns_;
  std::vector<int64_t>& list_end_ns_;
  std::optional<Network> network_;
  Timeline& timeline_;
};

Timeline EmptyTimeline(const Program& program) {
  Timeline timeline{.name = program.name,
                    .ranks = program.placement.ranks(),
                    .stages = program.placement.stages(),
                    .micro_batches = program.micro_batches,
                    .queues = program.queues};
  size_t actions = 0;
  for (const auto& list : program.ranks) actions += list.size();
  timeline.spans.reserve(actions);
  return timeline;
}

// Each rank begins its list at begin_ns[rank], which becomes when the list has ended.
absl::StatusOr<Timeline> SimulateFrom(std::vector<int64_t>& begin_ns, const Program& program, const Costs& costs,
                                      const Scenario& scenario) {
  CHECK_EQ(costs.stages.size(), static_cast<size_t>(program.placement.stages()));
  CHECK(scenario.slowdown.empty() || scenario.slowdown.size() == program.ranks.size()) << scenario.slowdown.size();
  Timeline timeline = EmptyTimeline(program);
  std::vector<int64_t> list_end_ns = begin_ns;
  ExecutionModel model = BuildExecutionModel(program);
  if (scenario.issue == Issue::kAhead) IssueAhead(program, model);
  if (!ExecutionRun(program, model, Clock(program, costs, scenario, begin_ns, list_end_ns, timeline)).Run()) {
    return absl::FailedPreconditionError("the program does not run to its end; Verify says why");
  }
  if (!costs.stage_bytes.empty()) timeline.samples = MemorySamples(program, costs.stage_bytes, timeline.spans);
  begin_ns = std::move(list_end_ns);
  return timeline;
}

}  // namespace

Costs UniformCosts(int stages, const StageCosts& stage) {
  return {.stages = std::vector<StageCosts>(static_cast<size_t>(stages), stage)};
}

absl::StatusOr<Timeline> Simulate(const Program& program, const Costs& costs, const Scenario& scenario) {
  std::vector<int64_t> begin_ns(program.ranks.size());
  return SimulateFrom(begin_ns, program, costs, scenario);
}

absl::StatusOr<std::vector<Timeline>> SimulateSteps(absl::Span<const Program* const> steps, const Costs& costs) {
  std::vector<Timeline> timelines;
  std::vector<int64_t> begin_ns;
  for (const Program* program : steps) {
    begin_ns.resize(program->ranks.size());
    ASSIGN_OR_RETURN(timelines.emplace_back(), SimulateFrom(begin_ns, *program, costs, {}));
  }
  return timelines;
}

}  // namespace sluice
