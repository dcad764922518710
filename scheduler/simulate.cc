#include "scheduler/simulate.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "scheduler/execution_model.h"
#include "scheduler/execution_run.h"

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

// When which slots of a rank are taken and given back, in bytes.
class MemoryCurve {
 public:
  MemoryCurve(const Program& program, const std::vector<StageBytes>& bytes) : program_(program), bytes_(bytes) {
    changes_.resize(program.placement.ranks());
  }

  void OnEnd(PipelineRank rank, const Action& a, int64_t begin_ns, int64_t end_ns) {
    const bool frees_input = program_.pass == PassKind::kForwardOnly;
    switch (a.kind) {
      case ActionKind::kForward:
        Add(rank, begin_ns, Of(a.stage, Pool::kStash) + Written(a, a.stage.value() + 1, Pool::kInput, Pool::kOutput));
        if (frees_input) Add(rank, end_ns, -Of(a.stage, Pool::kStash) - InputBytes(a.stage));
        break;
      case ActionKind::kBackward:
      case ActionKind::kInputGradient:
        Add(rank, begin_ns,
            Of(a.stage, Pool::kGradientStash) +
                Written(a, a.stage.value() - 1, Pool::kOutputGradient, Pool::kInputGradient));
        if (a.kind == ActionKind::kInputGradient) break;
        [[fallthrough]];
      case ActionKind::kWeightGradient:
        Add(rank, end_ns, -Of(a.stage, Pool::kStash) - Of(a.stage, Pool::kGradientStash) - InputBytes(a.stage));
        if (a.stage.value() < program_.placement.stages() - 1) Add(rank, end_ns, -Of(a.stage, Pool::kOutputGradient));
        break;
      case ActionKind::kRecvForward:
        Add(rank, begin_ns, Of(a.stage, Pool::kInput));
        break;
      case ActionKind::kRecvBackward:
        Add(rank, begin_ns, Of(a.stage, Pool::kOutputGradient));
        break;
      case ActionKind::kSendForward:
        Add(rank, end_ns, -Of(a.stage, Pool::kOutput));
        break;
      case ActionKind::kSendBackward:
        Add(rank, end_ns, -Of(a.stage, Pool::kInputGradient));
        break;
      default:
        break;
    }
  }

  // Sorted by time; what is given back at a moment counts before what is taken at it.
  std::vector<MemorySample> Samples() {
    std::vector<MemorySample> samples;
    for (size_t r = 0; r < changes_.size(); ++r) {
      std::sort(changes_[r].begin(), changes_[r].end());
      int64_t held = Fixed(PipelineRank(static_cast<int>(r)));
      samples.push_back({PipelineRank(static_cast<int>(r)), 0, held});
      for (const auto& [time_ns, bytes] : changes_[r]) {
        held += bytes;
        if (samples.back().rank.index() != r || samples.back().time_ns != time_ns || bytes > 0) {
          samples.push_back({PipelineRank(static_cast<int>(r)), time_ns, held});
        } else {
          samples.back().bytes = held;
        }
      }
    }
    return samples;
  }

 private:
  int64_t Of(StageId stage, Pool pool) const { return bytes_[stage.index()].slot[static_cast<size_t>(pool)]; }
  int64_t InputBytes(StageId stage) const { return stage.value() > 0 ? Of(stage, Pool::kInput) : 0; }
  // The slot that a compute action writes: its neighbour's on the same rank, its own for a message, or none.
  int64_t Written(const Action& a, int neighbour, Pool neighbours, Pool own) const {
    const Placement& placement = program_.placement;
    if (neighbour < 0 || neighbour >= placement.stages()) return 0;
    const bool local = placement.RankOf(StageId(neighbour), a.copy) == placement.RankOf(a.stage, a.copy);
    return local ? Of(StageId(neighbour), neighbours) : Of(a.stage, own);
  }
  int64_t Fixed(PipelineRank rank) const {
    int64_t total = 0;
    for (int copy = 0; copy < program_.placement.copies(); ++copy) {
      for (int s = 0; s < program_.placement.stages(); ++s) {
        if (program_.placement.RankOf(StageId(s), copy) == rank) total += bytes_[s].fixed;
      }
    }
    return total;
  }
  void Add(PipelineRank rank, int64_t time_ns, int64_t bytes) {
    if (bytes != 0) changes_[rank.index()].emplace_back(time_ns, bytes);
  }

  const Program& program_;
  const std::vector<StageBytes>& bytes_;
  std::vector<std::vector<std::pair<int64_t, int64_t>>> changes_;
};

}  // namespace

Costs UniformCosts(int stages, const StageCosts& stage) {
  return {.stages = std::vector<StageCosts>(static_cast<size_t>(stages), stage)};
}

absl::StatusOr<Timeline> Simulate(const Program& program, const Costs& costs) {
  CHECK_EQ(costs.stages.size(), static_cast<size_t>(program.placement.stages()));
  const ExecutionModel model = BuildExecutionModel(program);
  Timeline timeline = EmptyTimeline(program);
  timeline.queues = program.queues;
  size_t actions = 0;
  for (const auto& list : program.ranks) actions += list.size();
  timeline.spans.reserve(actions);
  MemoryCurve memory(program, costs.stage_bytes);
  const auto duration = [&](size_t rank, const Action& action) {
    if (IsTransfer(action.kind)) return TransferNs(MessageBytes(action, costs), costs);
    if (action.kind == ActionKind::kCollective) return costs.collective_ns;
    if (action.kind == ActionKind::kOptimizerStep) {
      return OptimizerNs(program.placement, PipelineRank(static_cast<int>(rank)), costs);
    }
    return ComputeNs(action, costs);
  };
  const auto on_end = [&](size_t r, int32_t position, int64_t begin_ns, int64_t end_ns) {
    const PipelineRank rank(static_cast<int>(r));
    const Action& action = program.ranks[r][position];
    timeline.spans.push_back({rank, action, begin_ns, end_ns, MessageBytes(action, costs)});
    if (!costs.stage_bytes.empty()) memory.OnEnd(rank, action, begin_ns, end_ns);
  };
  ExecutionRun run(program, model, duration, on_end);
  if (!run.Run()) return absl::FailedPreconditionError("the program does not run to its end; Verify says why");
  if (!costs.stage_bytes.empty()) timeline.samples = memory.Samples();
  return timeline;
}

}  // namespace sluice
