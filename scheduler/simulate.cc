#include "scheduler/simulate.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status.h"
#include "scheduler/execution_model.h"
#include "scheduler/execution_run.h"
#include "scheduler/memory_samples.h"

namespace sluice {
namespace {

int64_t ComputeNs(const Action& action, const Costs& costs) {
  const StageCosts& stage = costs.stages[action.stage.index()];
  switch (action.kind) {
    case ActionKind::kForward:
      return stage.forward_ns;
    case ActionKind::kBackward:
      return stage.backward_ns;
    case ActionKind::kInputGradient:
      return stage.input_gradient_ns;
    case ActionKind::kWeightGradient:
      return stage.weight_gradient_ns;
    default:
      return 0;
  }
}

int64_t MessageBytes(const Action& action, const Costs& costs) {
  // The sender's stage says how large its message is.
  switch (action.kind) {
    case ActionKind::kSendForward:
      return costs.stages[action.stage.index()].activation_bytes;
    case ActionKind::kRecvForward:
      return costs.stages[action.stage.index() - 1].activation_bytes;
    case ActionKind::kSendBackward:
      return costs.stages[action.stage.index()].gradient_bytes;
    case ActionKind::kRecvBackward:
      return costs.stages[action.stage.index() + 1].gradient_bytes;
    default:
      return 0;
  }
}

int64_t TransferNs(int64_t bytes, const Costs& costs) {
  if (costs.transfer_bytes_per_second <= 0) return costs.transfer_latency_ns;
  return costs.transfer_latency_ns +
         static_cast<int64_t>(1e9 * static_cast<double>(bytes) / costs.transfer_bytes_per_second);
}

int64_t OptimizerNs(const Placement& placement, PipelineRank rank, const Costs& costs) {
  int64_t total = 0;
  for (int copy = 0; copy < placement.copies(); ++copy) {
    for (int s = 0; s < placement.stages(); ++s) {
      if (placement.RankOf(StageId(s), copy) == rank) total += costs.stages[s].optimizer_ns;
    }
  }
  return total;
}

template <class Lowered>
Timeline EmptyTimeline(const Lowered& lowered) {
  return {.name = lowered.name,
          .ranks = lowered.placement.ranks(),
          .stages = lowered.placement.stages(),
          .micro_batches = lowered.micro_batches};
}

}  // namespace

Costs UniformCosts(int stages, const StageCosts& stage) {
  return {.stages = std::vector<StageCosts>(static_cast<size_t>(stages), stage)};
}

namespace {

// Each rank begins its list at begin_ns[rank], which becomes when the list has ended.
absl::StatusOr<Timeline> SimulateFrom(std::vector<int64_t>& begin_ns, const Program& program, const Costs& costs) {
  CHECK_EQ(costs.stages.size(), static_cast<size_t>(program.placement.stages()));
  const ExecutionModel model = BuildExecutionModel(program);
  Timeline timeline = EmptyTimeline(program);
  timeline.queues = program.queues;
  size_t actions = 0;
  for (const auto& list : program.ranks) actions += list.size();
  timeline.spans.reserve(actions);
  const auto duration = [&](size_t rank, const Action& action) {
    if (IsTransfer(action.kind)) return TransferNs(MessageBytes(action, costs), costs);
    if (IsCollective(action)) return costs.collective_ns;
    if (action.kind == ActionKind::kOptimizerStep ||
        (action.kind == ActionKind::kPostValidation && program.validation == Validation::kGuessWrong)) {
      return OptimizerNs(program.placement, PipelineRank(static_cast<int>(rank)), costs);
    }
    return IsCompute(action.kind) ? ComputeNs(action, costs) : 0;
  };
  std::vector<int64_t> list_end_ns = begin_ns;
  const auto on_end = [&](size_t r, int32_t position, int64_t begin_ns, int64_t end_ns) {
    const PipelineRank rank(static_cast<int>(r));
    const Action& action = program.ranks[r][position];
    list_end_ns[r] = std::max(list_end_ns[r], end_ns);
    timeline.spans.push_back({rank, action, begin_ns, end_ns, MessageBytes(action, costs)});
  };
  ExecutionRun run(program, model, duration, on_end);
  for (size_t r = 0; r < begin_ns.size(); ++r) run.BeginAt(r, begin_ns[r]);
  if (!run.Run()) return absl::FailedPreconditionError("the program does not run to its end; Verify says why");
  if (!costs.stage_bytes.empty()) timeline.samples = MemorySamples(program, costs.stage_bytes, timeline.spans);
  begin_ns = std::move(list_end_ns);
  return timeline;
}

}  // namespace

absl::StatusOr<Timeline> Simulate(const Program& program, const Costs& costs) {
  std::vector<int64_t> begin_ns(program.ranks.size());
  return SimulateFrom(begin_ns, program, costs);
}

absl::StatusOr<std::vector<Timeline>> SimulateSteps(absl::Span<const Program* const> steps, const Costs& costs) {
  std::vector<Timeline> timelines;
  std::vector<int64_t> begin_ns;
  for (const Program* program : steps) {
    begin_ns.resize(program->ranks.size());
    ASSIGN_OR_RETURN(timelines.emplace_back(), SimulateFrom(begin_ns, *program, costs));
  }
  return timelines;
}

}  // namespace sluice
